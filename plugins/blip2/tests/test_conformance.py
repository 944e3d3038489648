"""The laws of the SDK, one test each: what `engine plugins verify` checks."""

from __future__ import annotations

from sdk.testing import Conformance


class TestBlip2(Conformance):
    architecture = "Blip2ForConditionalGeneration"

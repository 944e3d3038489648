"""The laws of the SDK, one test each: what `engine plugins verify` checks."""

from __future__ import annotations

from sdk.testing import Conformance


class TestMamba(Conformance):
    architecture = "MambaForCausalLM"


class TestMamba2(Conformance):
    architecture = "Mamba2ForCausalLM"

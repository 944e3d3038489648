"""The laws of the SDK, one test each: what `engine plugins verify` checks."""

from __future__ import annotations

from sdk.testing import Conformance


class TestCLIPVisionModel(Conformance):
    architecture = "CLIPVisionModel"


class TestSiglipVisionModel(Conformance):
    architecture = "SiglipVisionModel"


class TestPixtralVisionModel(Conformance):
    architecture = "PixtralVisionModel"


class TestIdefics2VisionTransformer(Conformance):
    architecture = "Idefics2VisionTransformer"

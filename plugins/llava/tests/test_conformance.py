"""The laws of the SDK, one test each: what `engine plugins verify` checks, and the same over other towers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from sdk.registry import register, unregister
from sdk.testing import Conformance


class TestLlava(Conformance):
    architecture = "LlavaForConditionalGeneration"


class TestLlavaNext(Conformance):
    architecture = "LlavaNextForConditionalGeneration"


class OverAnotherTower(Conformance):
    """LLaVA with another tiny checkpoint than the one that its record names."""

    architecture = "LlavaForConditionalGeneration"
    tiny: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _registered(cls) -> Iterator[None]:
        register(cls.architecture, f"engine_plugin_llava.tiny:{cls.tiny}", part="tiny")
        yield
        unregister(cls.architecture)


class TestLlavaOverSiglip(OverAnotherTower):
    tiny = "llava_over_siglip"


@pytest.mark.usefixtures("pixtral_processor_of_hf")
class TestLlavaOverPixtral(OverAnotherTower):
    tiny = "llava_over_pixtral"

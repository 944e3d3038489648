"""Plants faults: parts registered in this process in the place of a plugin's own, and plugins of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdk import registry
from sdk.testing import LawResult, Suite
from sdk.testing.fake_dist import plugin_source, write_distribution

LLAMA, QWEN2 = "LlamaForCausalLM", "Qwen2ForCausalLM"
LLAVA, CLIP = "LlavaForConditionalGeneration", "CLIPVisionModel"
TINY = {LLAMA: "engine_plugin_llama.tiny:llama", QWEN2: "engine_plugin_llama.tiny:qwen2"}
LLAVA_PARTS = {
    "processor": "engine_plugin_llava.processing:LlavaMultiModalProcessor",
    "info": "engine_plugin_llava.processing:LlavaProcessingInfo",
    "dummy_inputs": "engine_plugin_llava.processing:LlavaDummyInputsBuilder",
    "capabilities": "engine_plugin_llava.plugin:capabilities",
    "tiny": "engine_plugin_llava.tiny:llava",
    "role": "vision-language",
}


@contextmanager
def suite_with(architecture: str, part: str, value: Any, **fields: Any) -> Iterator[Suite]:
    """The laws about an architecture of which one part was replaced."""
    if part == "model":  # a model registered by hand comes with nothing of the installed plugin's
        fields = fields or ({"tiny": TINY[architecture]} if architecture in TINY else LLAVA_PARTS)
    registry.register(architecture, value, part=part, replace=True, **fields)
    try:
        with Suite(architecture) as suite:
            yield suite
    finally:
        registry.unregister(architecture)


@pytest.fixture
def planted() -> Callable[..., LawResult]:
    """Checks one law about an architecture of which one part was replaced."""

    def check(law_id: str, architecture: str, part: str, value: Any, **fields: Any) -> LawResult:
        with suite_with(architecture, part, value, **fields) as suite:
            return suite.check(law_id)

    return check


@pytest.fixture
def source_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., Suite]:
    """The laws about a plugin whose plugin.py and model.py are given as text."""
    package = f"planted_{abs(hash(request.node.nodeid)) % 10**9}"

    def make(*, model: str = "", imports: str = "", claims: tuple[str, ...] = ("PlantedForCausalLM",)) -> Suite:
        plugin = plugin_source("PlantedForCausalLM", imports=imports, model=f"{package}.model:Planted")
        write_distribution(
            tmp_path,
            "engine-plugin-planted",
            entry_points={"engine.v1": dict.fromkeys(claims, f"{package}.plugin")},
            files={f"{package}/plugin.py": plugin, f"{package}/model.py": model},
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        return Suite("PlantedForCausalLM")

    return make

"""A scheme that the engine has never heard of: registered by hand, or brought by a distribution."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core import LLM, explain
from core.cli import run
from core.errors import (
    InvalidConfigError,
    InvalidRequestError,
    PluginConflictError,
    PluginContractError,
    PluginImportError,
    PluginMissingError,
    PluginVersionError,
)
from core.plugins import Catalog
from core.registry import QUANTIZATION
from sdk import __version__ as SDK_VERSION
from sdk import registry
from sdk.spec import Capabilities
from sdk.testing.fake_dist import write_distribution
from sdk.testing.reference import assert_close, load_hf

from .conftest import OPTIONS, hf_logits, logits

GROUP = "engine.v1.quantization"
NIBBLES = '''
"""Two weights in a byte, a scale for each output."""
import torch
from torch import nn
from torch.nn import functional as F
import sdk
from sdk.layers import ParallelLMHead
from sdk.layers.linear import Linear


class Nibbles(sdk.QuantizeMethod):
    def process_weights_after_loading(self, layer):
        scale = layer.weight.abs().amax(1, keepdim=True) / 7
        values = (layer.weight / scale).round().to(torch.int8) + 8
        layer.weight = nn.Parameter((values[:, ::2] * 16 + values[:, 1::2]).to(torch.uint8), requires_grad=False)
        layer.weight_scale = nn.Parameter(scale, requires_grad=False)

    def apply(self, layer, x):
        packed = layer.weight
        values = torch.stack((packed // 16, packed % 16), dim=-1).flatten(1).to(x.dtype) - 8
        return F.linear(x, values * layer.weight_scale, layer.bias)


class NibblesConfig(sdk.QuantizationConfig):
    @classmethod
    def get_name(cls):
        return "nibbles"

    @classmethod
    def from_config(cls, config):
        return cls()

    def get_quant_method(self, layer, name):
        good = isinstance(layer, Linear) and not isinstance(layer, ParallelLMHead)
        return Nibbles() if good else None
'''


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    QUANTIZATION.unregister("nibbles")
    sys.modules.pop("nibbles", None)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for site-packages."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("ENGINE_PLUGINS", raising=False)
    return folder


def install(
    site: Path, name: str = "engine-plugin-nibbles", source: str = NIBBLES, group: str = GROUP, **more: Any
) -> None:
    target = more.pop("target", "nibbles:NibblesConfig")
    write_distribution(site, name, entry_points={group: {"nibbles": target}}, files={"nibbles.py": source}, **more)
    importlib.invalidate_caches()


def runs(folder: Path) -> None:
    """The engine computes what transformers does with weights rounded to four bits, and plans the smaller bytes."""
    with LLM(str(folder), quantization="nibbles", **OPTIONS) as llm:
        plan, found = llm.plan, logits(llm)
    assert plan.quantization is not None
    assert plan.quantization.scheme == "nibbles"
    plain = explain(str(folder), **OPTIONS).plan
    assert plain is not None
    layers = plain.memory.weights - plan.memory.weights + plan.quantization.bytes
    assert layers / 9 < plan.quantization.bytes < layers / 6  # an eighth of float32, and scales
    model = load_hf(folder)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            scale = module.weight.data.abs().amax(dim=1, keepdim=True) / 7
            module.weight.data = (module.weight.data / scale).round() * scale
    assert_close(found, hf_logits(model))


def test_a_scheme_of_an_installed_distribution(site: Path, llama_folder: Path) -> None:
    install(site)
    assert "nibbles" in QUANTIZATION
    assert "nibbles" not in sys.modules
    runs(llama_folder)


def test_the_list_of_plugins_has_the_schemes_and_runs_none(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site)
    assert run(["plugins", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["nibbles", "0.1.0", "ready", "engine-plugin-nibbles"] in rows
    assert ["int8", SDK_VERSION, "ready", "engine-plugin-sdk"] in rows
    assert "nibbles" not in sys.modules


def test_a_scheme_registered_in_this_process(site: Path, llama_folder: Path) -> None:
    (site / "nibbles.py").write_text(NIBBLES)
    QUANTIZATION.register("nibbles", importlib.import_module("nibbles").NibblesConfig)
    runs(llama_folder)
    QUANTIZATION.unregister("nibbles")
    QUANTIZATION.register("nibbles", "nibbles:NibblesConfig")
    runs(llama_folder)


def test_our_own_schemes_are_entries_like_any_other() -> None:
    own = {claim.name: claim.distribution for claim in QUANTIZATION.claims()}
    assert own.keys() >= {"int8", "int8_weight_only", "compressed-tensors"}
    assert set(own.values()) == {"engine-plugin-sdk"}
    assert set(QUANTIZATION) >= {"int8", "int8_weight_only", "compressed-tensors"}
    assert all(QUANTIZATION[name].get_name() == name for name in QUANTIZATION)
    with pytest.raises(TypeError):
        QUANTIZATION["int8"] = object  # type: ignore[index]


def test_two_that_bring_one_name_are_settled_by_the_user(site: Path, llama_folder: Path) -> None:
    install(site)
    install(site, "engine-plugin-bytes")
    with pytest.raises(PluginConflictError, match=r"engine-plugin-bytes 0.1.0 and by engine-plugin-nibbles 0.1.0"):
        QUANTIZATION["nibbles"]
    assert QUANTIZATION.resolve("nibbles", {"nibbles": "engine_plugin_bytes"}).get_name() == "nibbles"
    with LLM(str(llama_folder), quantization="nibbles", plugins={"nibbles": "engine-plugin-bytes"}, **OPTIONS):
        pass
    with pytest.raises(PluginMissingError, match="does not bring it"):
        QUANTIZATION.resolve("nibbles", {"nibbles": "engine-plugin-none"})


def test_the_allow_list_knows_a_distribution_that_brings_no_model(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site)
    monkeypatch.setenv("ENGINE_PLUGINS", "engine-plugin-llama,engine-plugin-nibbles,engine-plugin-none")
    assert Catalog.installed().notes == ("ENGINE_PLUGINS names 'engine-plugin-none', which is no installed plugin",)
    assert QUANTIZATION["nibbles"].get_name() == "nibbles"


def test_one_that_is_left_out_too_new_or_broken_says_so(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site)
    with monkeypatch.context() as patch:
        patch.setenv("ENGINE_PLUGINS", "engine-plugin-llama")
        assert "nibbles" not in QUANTIZATION
        assert "int8" in QUANTIZATION
        with pytest.raises(PluginVersionError, match="the allow-list ENGINE_PLUGINS leaves it out"):
            QUANTIZATION["nibbles"]
    for more, wrong in (
        ({"group": "engine.v2.quantization"}, "it is written for API v2"),
        ({"requires": ["engine-plugin-sdk>=7"]}, "it needs engine-plugin-sdk>=7"),
        ({"target": "nibbles"}, "is no 'module:attribute'"),
    ):
        install(site, **more)
        _look_again()
        with pytest.raises(PluginVersionError, match=wrong):
            QUANTIZATION["nibbles"]
    for source, target, kind in (
        ("1 / 0", "nibbles:NibblesConfig", PluginImportError),
        (NIBBLES, "nibbles:Missing", PluginImportError),
        (NIBBLES, "nibbles:Nibbles", PluginContractError),
        (NIBBLES.replace('return "nibbles"', 'return "other"'), "nibbles:NibblesConfig", PluginContractError),
    ):
        sys.modules.pop("nibbles", None)
        install(site, source=source, target=target)
        _look_again()
        with pytest.raises(kind, match=r"engine-plugin-nibbles 0\.1\.0"):
            QUANTIZATION["nibbles"]


def _look_again() -> None:
    """The same path holds other metadata now."""
    QUANTIZATION._scanned = None


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("return Nibbles() if", "1 / 0; return Nibbles() if", "get_quant_method raised ZeroDivisionError"),
        ("return Nibbles() if good else None", "return 8", "get_quant_method returned 8"),
        ("scale = layer.weight.abs()", "1 / 0; scale = layer.weight.abs()", "process_weights_after_loading raised"),
        ("return cls()", "return cls(1)", "from_config raised TypeError"),
    ],
)
def test_a_hook_that_fails_is_named(site: Path, llama_folder: Path, before: str, after: str, match: str) -> None:
    install(site, source=NIBBLES.replace(before, after))
    sys.modules.pop("nibbles", None)
    with pytest.raises(PluginContractError, match=match):
        LLM(str(llama_folder), quantization="nibbles", **OPTIONS)


def test_a_hook_that_is_misspelt_is_refused_when_the_class_is_made(site: Path) -> None:
    install(site, source=NIBBLES.replace("def get_quant_method", "def get_quant_methods"))
    with pytest.raises(PluginImportError, match="looks like the hook 'get_quant_method' misspelt"):
        QUANTIZATION["nibbles"]


def test_registering_what_is_none_is_refused() -> None:
    for name, value in (("nibbles", object), ("nibbles", "nibbles"), ("", "a:b"), ("nibbles", QUANTIZATION["int8"])):
        with pytest.raises(InvalidRequestError):
            QUANTIZATION.register(name, value)
    QUANTIZATION.register("nibbles", "a:b")
    with pytest.raises(PluginConflictError, match="replace=True"):
        QUANTIZATION.register("nibbles", "a:c")
    QUANTIZATION.register("nibbles", "a:c", replace=True)


def test_a_plugin_may_refuse_a_scheme(llama_folder: Path) -> None:
    name = "LlamaForCausalLM"
    for allowed, told in (((), "it works with none"), (("nibbles",), "it works with nibbles")):
        registry.register(
            name, lambda config, a=allowed: Capabilities(quantization=a), part="capabilities", replace=True
        )
        try:
            with pytest.raises(InvalidConfigError, match=f"does not work with the quantization scheme 'int8': {told}"):
                LLM(str(llama_folder), quantization="int8", **OPTIONS)
        finally:
            registry.unregister(name)


def test_a_method_that_looks_at_values_is_planned_by_what_is_loaded(site: Path, llama_folder: Path) -> None:
    looks = NIBBLES.replace(
        "scale = layer", "assert bool((layer.weight == layer.weight).all())\n        scale = layer", 1
    )
    install(site, source=looks)
    told, plain = (explain(str(llama_folder), quantization=q, **OPTIONS).plan for q in ("nibbles", None))
    assert told is not None
    assert plain is not None
    assert told.memory.weights == plain.memory.weights
    with LLM(str(llama_folder), quantization="nibbles", **OPTIONS) as llm:
        assert torch.isfinite(logits(llm)).all()

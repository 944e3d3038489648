"""The laws about quantization schemes: ours hold, and each fault that authors make is found, with what to look at."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from core.cli import run
from core.registry import QUANTIZATION
from sdk.testing.scheme_laws import LAWS
from sdk.testing.schemes import SchemeSuite, verify_scheme

SOUND = """
import sdk
import torch
from sdk.errors import InvalidConfigError
from sdk.layers import ParallelLMHead
from sdk.layers.linear import Linear
from torch import nn
from torch.nn import functional as F

class Bytes(sdk.QuantizeMethod):
    def process_weights_after_loading(self, layer):
        scale = layer.weight.abs().amax(1, keepdim=True) / 127
        layer.weight, weight = nn.Parameter((layer.weight / scale).round().to(torch.int8), False), layer.weight
        layer.scale = nn.Parameter(scale, False)

    def apply(self, layer, x):
        return F.linear(x, layer.weight * layer.scale, layer.bias)

class Config(sdk.QuantizationConfig):
    @classmethod
    def get_name(cls):
        return "planted"

    @classmethod
    def from_config(cls, config):
        if set(config) - {"quant_method"}:
            raise InvalidConfigError("no options")
        return cls()

    def get_quant_method(self, layer, name):
        return Bytes() if isinstance(layer, Linear) and not isinstance(layer, ParallelLMHead) else None
"""
Planted = Callable[..., SchemeSuite]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Planted]:
    """The laws about the sound scheme with some of its text replaced."""
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"planted_scheme_{abs(hash(request.node.nodeid)) % 10**9}"
    made: list[SchemeSuite] = []

    def make(before: str = "", after: str = "") -> SchemeSuite:
        assert before in SOUND
        (tmp_path / f"{name}.py").write_text(SOUND.replace(before, after) if before else SOUND)
        QUANTIZATION.register("planted", importlib.import_module(name).Config, replace=True)
        made.append(SchemeSuite("planted"))
        return made[-1]

    yield make
    for suite in made:
        suite.close()
    QUANTIZATION.unregister("planted")


@pytest.mark.parametrize(
    ("law", "before", "after", "says", "cause"),
    [
        ("L0.no-core", "import sdk\n", "import sdk\nimport core\n", "imports core", "belongs into sdk"),
        ("Q1.options", 'set(config) - {"quant_method"}', "None", "takes an option that nobody knows", "lost in silence"),
        ("Q1.options", "InvalidConfigError(", "KeyError(", "raised KeyError for an unknown option", "InvalidConfigError"),
        ("Q1.choice", "Bytes() if", "None if", "changes no layer", "None for every linear layer"),
        ("Q1.choice", "isinstance(layer, Linear) and", "", "looked up and not multiplied", "no sdk.layers.linear.Linear"),
        ("Q1.choice", "return Bytes()", 'return "v_proj" not in name and Bytes()', "different answers", "equal where"),
        ("Q1.smaller", "layer.scale =", "layer.kept = weight; layer.scale =", "bytes in float32, and takes", "kept beside"),
        ("Q4.close", "layer.weight * layer.scale", "layer.weight / layer.scale", "of their spread", "wrong side"),
        ("Q4.close", "layer.weight * layer.scale, layer.bias)", "layer.weight * layer.scale).double()", "float64", "dtype of x"),
        ("Q4.rows", "F.linear(x,", "F.linear((x * 7 / x.abs().max()).round() * x.abs().max() / 7,", "company", "one scale"),
        ("Q4.rows", "return F.linear(x,", "x.abs().amax(); return F.linear(x,", "amax", ""),
    ],
)  # fmt: skip
def test_a_fault_is_found(planted: Planted, law: str, before: str, after: str, says: str, cause: str) -> None:
    result = planted(before, after).check(law)
    assert result.status == "failed", result
    assert says in result.detail
    assert cause in result.cause
    assert result.docs == f"docs/verify.md#{law.lower().replace('.', '')}"


def test_a_sound_scheme_is_not_accused(planted: Planted) -> None:
    report = planted().report()
    assert {result.status for result in report.results} == {"passed"}, report
    assert (report.architecture, report.plugin) == ("planted", "in-process")


@pytest.mark.parametrize("scheme", ["int8_weight_only", "compressed-tensors"])
def test_our_own_hold_every_law(scheme: str) -> None:
    torch.set_num_threads(1)
    results = {result.law: result for result in verify_scheme(scheme).results}
    assert not {name: result for name, result in results.items() if result.status == "failed"}
    assert results["L0.no-core"].status == "skipped"
    assert results["Q5.engine"].status == ("skipped" if scheme == "compressed-tensors" else "passed")


def test_a_scheme_can_be_asked_for_some_levels_alone() -> None:
    report = verify_scheme("int8_weight_only", 1, 1)
    assert [result.law for result in report.results] == ["Q1.options", "Q1.choice", "Q1.smaller"]
    assert report.passed


def test_the_command_proves_a_scheme_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "verify", "nothing-like-it"]) == 2
    assert "No installed plugin runs nothing-like-it" in capsys.readouterr().err


def test_every_law_has_its_place_in_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    assert not [law.id for law in LAWS if f"### {law.id}\n" not in page]

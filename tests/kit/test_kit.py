"""The kit itself: our plugins pass, and the command line tells it all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.cli import run
from core.runtime import CoreRuntime
from sdk import registry
from sdk.errors import InvalidConfigError, PluginMissingError
from sdk.testing import Runtime, Suite, find_runtime, verify
from sdk.testing.levels import LEVELS
from sdk.testing.scheme_laws import LAWS as SCHEME_LAWS
from sdk.testing.source_folder import on_path

from .conftest import CLIP, LLAMA, LLAVA

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("architecture", [LLAMA, LLAVA, CLIP])
def test_our_plugins_break_no_law(architecture: str) -> None:
    report = verify(architecture)
    assert [result.explain() for result in report.results if result.status == "failed"] == []
    assert report.passed
    assert {result.level for result in report.results} == set(range(6))
    assert all(result.detail for result in report.results), "every result says what was looked at, or why not"


def test_the_core_is_the_runtime_that_its_entry_point_names() -> None:
    runtime = find_runtime()
    assert isinstance(runtime, CoreRuntime)
    assert isinstance(runtime, Runtime)


def test_a_name_is_an_architecture_or_a_distribution() -> None:
    runtime = CoreRuntime()
    assert runtime.architectures(LLAVA) == [LLAVA]
    expected = ["LlamaForCausalLM", "MinistralForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"]
    assert runtime.architectures("llama") == runtime.architectures("Engine_Plugin.Llama") == expected
    with pytest.raises(PluginMissingError, match="No installed plugin runs Nope"):
        runtime.architectures("Nope")


def test_laws_about_metadata_have_nothing_to_say_of_what_was_registered_in_process() -> None:
    registry.register("HandmadeForCausalLM", "engine_plugin_llama.model:LlamaForCausalLM")
    try:
        with Suite("HandmadeForCausalLM") as suite:
            result = suite.check("L0.metadata")
            without_tiny = suite.check("L1.parts")
    finally:
        registry.unregister("HandmadeForCausalLM")
    assert result.status == "skipped"
    assert "was registered in this process" in result.detail
    assert without_tiny.status == "failed"
    assert "names no tiny checkpoint" in without_tiny.detail


def test_every_law_is_explained_on_the_page_that_its_message_names() -> None:
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    headings = {line.removeprefix("### ").strip() for line in page.splitlines() if line.startswith("### ")}
    assert headings == {law.id for laws in (*LEVELS.values(), SCHEME_LAWS) for law in laws}
    assert all(law.id.startswith(f"L{level}.") for level, laws in LEVELS.items() for law in laws)


def test_the_command_verifies_a_folder_and_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "verify", str(ROOT / "plugins" / "llava"), "--level", "3", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert LLAVA in [report["architecture"] for report in reports]
    for report in reports:
        assert report["passed"]
        assert {result["level"] for result in report["results"]} == {0, 1, 2, 3}


def test_the_command_returns_1_and_explains_when_a_law_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    registry.register(LLAMA, "engine_plugin_llama.model:Qwen2ForCausalLM", tiny="engine_plugin_llama.tiny:llama")
    try:
        assert run(["plugins", "verify", LLAMA, "--level", "1", "--only"]) == 1
    finally:
        registry.unregister(LLAMA)
    out = capsys.readouterr().out
    assert "L1.weights failed: AttributeError: 'LlamaConfig' object has no attribute 'sliding_window'" in out
    assert "in build_decoder" in out, "the line of the plugin that raised it"
    assert "read:     docs/verify.md#l1weights" in out
    assert "skipped (not checked: it needs L1.weights, which failed):" in out
    assert "L0." not in out


def test_a_folder_that_is_no_plugin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"pyproject\.toml cannot be read"), on_path(tmp_path):
        pass
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    with pytest.raises(InvalidConfigError, match="declares no plugin"), on_path(tmp_path):
        pass


def test_naming_the_kit_loads_nothing_heavy() -> None:
    code = "import sys, sdk.testing, sdk.testing.law; assert not {'torch', 'pytest', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

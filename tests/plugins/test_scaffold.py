"""`engine plugins new`: what it writes installs, is proved right, and is well-formed, untouched."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from core.cli import run
from core.scaffold import kinds

PROOFS = {"quantization": "Q5.engine", "embedding": "L4.pooled-engine"}
"""The law that says most of a kind, where it is another than that of models that write text."""


def made(tmp_path: Path, *arguments: str) -> Path:
    folder = tmp_path / "plugin"
    assert run(["plugins", "new", *arguments, "--output", str(folder)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind for kind in kinds() if kind not in ("vlm", "asr")]
)  # tests/test_docs.py has those
def test_what_is_rendered_is_proved_untouched(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, f"my-{kind}", "--kind", kind)  # a name of its own: packages stay imported
    assert run(["plugins", "verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{PROOFS.get(kind, 'L4.greedy')} " in out
    assert " 0 failed" in out
    assert "there is nothing to compare with" not in out


@pytest.mark.parametrize("kind", kinds())
def test_what_is_rendered_is_well_formed(tmp_path: Path, kind: str) -> None:
    folder = made(tmp_path, "my-model", "--kind", kind)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if "{" in path.name or path.suffix == ".jinja"]
    assert not [path for path in files if "{{" in path.read_text() or "{%" in path.read_text()]
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())
    said = tomllib.loads((folder / "pyproject.toml").read_text())
    assert said["project"]["name"] == "engine-plugin-my-model"
    (entries,) = said["project"]["entry-points"].values()
    assert all(target.startswith("engine_plugin_my_model.") for target in entries.values())
    lint = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120", str(folder)]
    select = ["--select", "E,F,W,B,UP,SIM,RUF"]
    assert subprocess.run([*lint, "check", *select, *options], check=False).returncode == 0
    assert subprocess.run([*lint, "format", "--check", *options], check=False).returncode == 0


def test_the_speech_model_that_is_rendered_writes_clips_down(tmp_path: Path) -> None:
    import numpy as np

    from core import LLM
    from core.plugins import Catalog
    from sdk.testing.source_folder import on_path

    with on_path(made(tmp_path, "hears", "--kind", "asr")):
        Catalog.installed().resolve("HearsForConditionalGeneration").load("tiny")(0, tmp_path / "tiny")
        wave = np.sin(np.arange(3 * 16_000) / 20).astype(np.float32)  # a second longer than it hears at once
        with LLM(str(tmp_path / "tiny"), disable_progress=True) as llm:
            heard = llm.transcribe((wave, 16_000), language="Italian")
    assert (heard.language, heard.duration, len(heard.segments)) == ("it", 3.0, 2)


def test_a_plugin_for_an_architecture_of_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, "neox", "--from", "GPTNeoXForCausalLM")
    assert "class GPTNeoXForCausalLM(CausalLM)" in (folder / "src/engine_plugin_neox/model.py").read_text()
    assert "GPTNeoXConfig(" in (folder / "src/engine_plugin_neox/tiny.py").read_text()
    assert "transformers.models.gpt_neox" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["My_Model"], "is no name for a plugin"),
        (["../up"], "is no name for a plugin"),
        (["x", "--kind", "poem"], "--kind is one of"),
        (["x", "--from", "GPTNeoForCausalLMs"], "did you mean GPTNeoForCausalLM?"),
        (["x", "--kind", "quantization", "--from", "GPTNeoForCausalLM"], "a plugin of kind quantization has none"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plugin"
    assert run(["plugins", "new", *arguments, "--output", str(folder)]) == 2
    assert says in capsys.readouterr().err
    assert not folder.exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["plugins", "new", "x", "--output", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("place", ["file/within", "n" * 300], ids=["within a file", "too long a name"])
def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(["plugins", "new", "x", "--output", str(tmp_path / place)]) == 2
    assert "cannot be written" in capsys.readouterr().err

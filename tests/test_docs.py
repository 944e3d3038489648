"""The documents tell the truth: their blocks run, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import wave
from pathlib import Path

import pytest

from sdk.testing.fake_dist import write_distribution

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md")])
TUTORIALS = ("writing-a-plugin.md", "adding-a-vision-model.md", "adding-a-speech-model.md", "adding-a-state-layer.md")
SCAFFOLDED = {"adding-a-vision-model.md": ("peek", "vlm"), "adding-a-speech-model.md": ("listen", "asr")}
FILE_BLOCK = re.compile(r"```\w+ file=(\S+)\n(.*?)```", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS_THE_DEMO = "embedding.md"  # has a test of its own, below
PROGRAMS = sorted(p for p in ROOT.glob("docs/*.md") if PYTHON_BLOCK.search(p.read_text()) and p.name != NEEDS_THE_DEMO)
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!https?://|#)([^)#\s]+)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing


@pytest.fixture(scope="module", params=TUTORIALS)
def tutorial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a tutorial's distribution is as good as installed, and the architecture that it runs."""
    folder = tmp_path_factory.mktemp("tutorial")
    files = dict(FILE_BLOCK.findall((ROOT / "docs" / request.param).read_text()))
    for name, text in files.items():
        if name.startswith("src/"):
            path = folder / name.removeprefix("src/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()
    said = tomllib.loads(files["pyproject.toml"])["project"]
    points = said["entry-points"]
    write_distribution(
        folder, said["name"], version=said["version"], entry_points=points, requires=said["dependencies"]
    )
    return folder, next(iter(points["engine.v1"]))


def engine(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tutorials_plugin_is_found(tutorial: tuple[Path, str]) -> None:
    folder, architecture = tutorial
    listed = engine(folder, "plugins", "list")
    assert listed.returncode == 0, listed.stderr
    assert architecture in listed.stdout


def test_the_tutorials_plugin_passes_the_kit(tutorial: tuple[Path, str]) -> None:
    folder, architecture = tutorial
    verified = engine(folder, "plugins", "verify", architecture)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "there is nothing to compare with" not in verified.stdout


def test_the_tutorials_model_runs(tutorial: tuple[Path, str], tmp_path: Path) -> None:
    folder, architecture = tutorial
    program = (
        "import sys; from pathlib import Path; from core.plugins import Catalog; "
        "Catalog.installed().resolve(sys.argv[1]).load('tiny')(0, Path(sys.argv[2]))"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, architecture, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    if architecture == "ListenForConditionalGeneration":
        ran = engine(folder, "transcribe", str(tmp_path), str(noise(tmp_path / "clip.wav")), "-f", "json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["text"]
    else:
        ran = engine(folder, "run", str(tmp_path), "hello", "--max-tokens", "4", "--json")
        assert ran.returncode == 0, ran.stderr
        assert '"tokens": 4' in ran.stdout or '"finish_reason": "stop"' in ran.stdout


def noise(path: Path) -> Path:
    """Two seconds of it, as a file."""
    with wave.open(str(path), "wb") as clip:
        clip.setparams((1, 2, 16_000, 0, "NONE", ""))
        clip.writeframes(bytes(range(256)) * 250)
    return path


@pytest.mark.parametrize("page", SCAFFOLDED)
def test_a_tutorials_files_are_what_the_scaffold_writes(page: str, tmp_path: Path) -> None:
    from core.scaffold import scaffold

    name, kind = SCAFFOLDED[page]
    scaffold(name, kind, tmp_path / name)
    blocks = dict(FILE_BLOCK.findall((ROOT / "docs" / page).read_text()))
    assert blocks
    assert blocks == {path: (tmp_path / name / path).read_text() for path in blocks}


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_model_takes_as_many_lines_as_its_page_says(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    written = [line for _, block in FILE_BLOCK.findall(text) for line in block.splitlines() if line.strip()]
    assert f"It takes {len(written)} lines" in text
    assert len(written) <= (120 if page == "writing-a-plugin.md" else 350)


@pytest.mark.parametrize("document", PROGRAMS, ids=lambda p: p.name)
def test_a_pages_python_blocks_run_as_one_program(document: Path, tmp_path: Path) -> None:
    program = "\n".join(PYTHON_BLOCK.findall(document.read_text()))
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def beside_the_picture(tmp_path: Path) -> Path:
    """A folder with the demo's picture, as `shapes.png`."""
    from core.demos import find_demo
    from core.errors import ModelNotFoundError

    try:
        folder = find_demo("demo/llava")
    except ModelNotFoundError as e:
        pytest.skip(f"the demo model is not there: {e}")
    assert folder is not None
    (tmp_path / "shapes.png").write_bytes((folder / "example.png").read_bytes())
    return tmp_path


def test_the_readmes_program_runs(beside_the_picture: Path) -> None:
    """The README's Python block."""
    block = re.search(r"```python\n(from core import LLM.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    ran = subprocess.run(
        [sys.executable, "-c", block[1]],
        cwd=beside_the_picture,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "circle" in ran.stdout


EMBEDDING = PYTHON_BLOCK.findall((ROOT / "docs" / NEEDS_THE_DEMO).read_text())


@pytest.mark.parametrize("program", EMBEDDING, ids=range(len(EMBEDDING)))
def test_each_program_of_the_embedding_page_runs(beside_the_picture: Path, program: str) -> None:
    patient = program.replace("timeout=60", "timeout=None")  # kernels are compiled meanwhile, where the machine is new
    ran = subprocess.run(
        [sys.executable, "-c", patient],
        cwd=beside_the_picture,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    assert "so far" not in ran.stdout

"""The documentation builds as a site without a warning, and its reference leaves no public name out."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = ("sdk", "sdk.layers", "sdk.multimodal", "sdk.quantization", "sdk.testing", "sdk.transcription", "core")
SHOWN = re.compile(r"^::: (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Every name of which the reference shows the documentation."""
    return {name for page in (ROOT / "docs" / "reference").glob("*.md") for name in SHOWN.findall(page.read_text())}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_reference_has_every_public_name(package: str, shown: set[str]) -> None:
    module = importlib.import_module(package)
    names = {name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)}
    elsewhere = {name.rpartition(".")[2] for name in shown}  # where it is at home: `sdk.QuantizeMethod`
    assert not names - elsewhere, "add `::: package.Name` to a page of docs/reference"


def test_every_page_has_its_place_in_the_contents() -> None:
    contents = (ROOT / "zensical.toml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert not {page for page in pages if f'"{page}"' not in contents}


def test_the_site_builds_strictly() -> None:
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "griffe" not in built.stdout + built.stderr, "a docstring names an argument that is none"

"""The documentation builds as a site without a warning or a dead link, and its reference leaves no public name out."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

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


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built site."""
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "griffe" not in built.stdout + built.stderr, "a docstring names an argument that is none"
    return ROOT / "build" / "site"


class Page(HTMLParser):
    """Where a page's links lead, the places in it that they may lead to, and what it says outside of code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.text, self._inside = "", Counter[str]()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside[tag] += 1
        said = dict(attrs)
        self.links += [said[name] or "" for name in ("href", "src") if name in said]
        self.places |= {said[name] or "" for name in ("id", "name") if name in said}

    def handle_endtag(self, tag: str) -> None:
        self._inside[tag] -= 1

    def handle_data(self, data: str) -> None:
        if self._inside["article"] and not self._inside["code"] and not self._inside["script"]:
            self.text += data


def test_no_link_of_the_site_leads_nowhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}  # which is for a site's root
    dead = []
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            there = pages[target].places if target in pages else set()
            if not target.exists() or (address.fragment and unquote(address.fragment) not in there):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead


def test_the_changelog_is_in_the_site_with_its_links(site: Path) -> None:
    page = Page(site / "changelog.html")
    assert "Versions follow" in page.text
    assert "][" not in page.text, "a link that docs/changelog.md says nothing of: add it there and to CHANGELOG.md"

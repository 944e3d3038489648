"""The distributions of this repository fit one another: one version, one list, requirements that are met."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sdk._api import API_VERSION, DISTRIBUTION

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
PROJECTS: dict[str, dict[str, Any]] = {
    said["name"]: said for said in (tomllib.loads((f / "pyproject.toml").read_text())["project"] for f in FOLDERS)
}


def test_all_have_one_version_and_the_code_says_it() -> None:
    import core
    import sdk

    versions = {name: said["version"] for name, said in PROJECTS.items()}
    assert set(versions.values()) == {sdk.__version__} == {core.__version__}, versions


@pytest.mark.parametrize("name", sorted(PROJECTS))
def test_requirements_on_each_other_are_met_here_and_name_a_minor(name: str) -> None:
    requirements = [Requirement(text) for text in PROJECTS[name].get("dependencies", [])]
    ours = {r.name: r for r in requirements if r.name in PROJECTS}
    for other, requirement in ours.items():
        assert requirement.specifier.contains(PROJECTS[other]["version"]), str(requirement)
    if name != DISTRIBUTION:
        major, minor = API_VERSION
        ceiling = f"{major}.{minor + 1}" if major == 0 else f"{major + 1}"
        assert not ours[DISTRIBUTION].specifier.contains(ceiling), "a plugin says for which API it was written"


def test_the_makefile_installs_every_plugin() -> None:
    listed = re.search(r"^PLUGINS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert sorted(listed[1].split()) == [str(f.relative_to(ROOT)) for f in FOLDERS[1:]]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_each_brings_what_its_wheel_needs(folder: Path) -> None:
    said = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (folder / said["readme"]).is_file()
    assert said["license"]
    assert said["requires-python"] == ">=3.11"

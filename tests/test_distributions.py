"""The distributions of this repository fit one another: one version, one list, requirements that are met."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDK's wheel, built from the source tree and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def out_of(installed: Path, *command: str) -> str:
    """What a command prints that has the wheel, and no source tree."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run(
        [sys.executable, *command], cwd=installed.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_wheel_makes_plugins(installed: Path) -> None:
    assert str(installed) in out_of(installed, "-c", "import core; print(core.__file__)")
    made = out_of(installed, "-m", "core.cli", "plugins", "new", "mine")
    assert "engine-plugin-mine/pyproject.toml" in made
    assert (installed.parent / "engine-plugin-mine" / "src" / "engine_plugin_mine" / "model.py").is_file()


def test_the_wheel_brings_the_pages_that_its_messages_name(installed: Path) -> None:
    page = Path(out_of(installed, "-c", "from sdk.testing.law import PAGE; print(PAGE)").strip())
    assert page.is_relative_to(installed)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")

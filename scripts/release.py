"""The steps of a release that a program does better: `python scripts/release.py version 0.2.0`, `… wheels`.

See docs/releasing.md for the others.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
NAME = "engine-plugin-"


def projects() -> list[Path]:
    """The folders of all distributions, the SDK's first, since the others require it."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def set_version(new: Version) -> Iterator[Path]:
    """Write it wherever it stands, and into the requirements on one another. Yields the files that changed."""
    following = f"{new.major}.{new.minor + 1}" if new.major == 0 else str(new.major + 1)
    requirement = f">={new.major}.{new.minor},<{following}"
    for folder in projects():
        path = folder / "pyproject.toml"
        text = re.sub(r'^version = ".*"$', f'version = "{new}"', path.read_text(), count=1, flags=re.MULTILINE)
        text = re.sub(rf'("{NAME}[\w-]+(?:\[\w+\])?)>=[\d.]+,<[\d.]+"', rf'\g<1>{requirement}"', text)
        yield from _write(path, text)
    for path in (ROOT / "core" / "__init__.py", ROOT / "sdk" / "__init__.py"):
        yield from _write(path, re.sub(r'^__version__ = ".*"$', f'__version__ = "{new}"', path.read_text(), flags=re.M))


def _write(path: Path, text: str) -> Iterator[Path]:
    if text != path.read_text():
        path.write_text(text)
        yield path


def build(out: Path) -> None:
    """A wheel and an sdist of each distribution."""
    for folder in projects():
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(folder)], check=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("version", help="write a version everywhere").add_argument("new", type=Version)
    steps.add_parser("wheels", help="build everything").add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    if arguments.step == "wheels":
        build(arguments.out)
    else:
        for path in set_version(arguments.new):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

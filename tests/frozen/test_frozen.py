"""What was written for a frozen version of the SDK goes on working: wheels of that day, and every name they could use."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.sdk.surface import surface

FOLDER = Path(__file__).parent
WHEELS = sorted(FOLDER.glob("*/*.whl"))
VERSIONS = sorted(FOLDER.glob("*/surface.txt"))


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda p: f"{p.parent.name}-{p.name.split('-')[0]}")
def test_a_plugin_of_that_day_passes_the_kit(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    name = wheel.name.split("-")[0].replace("_", "-")
    verified = subprocess.run(
        [sys.executable, "-m", "core.cli", "plugins", "verify", name],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("frozen", VERSIONS, ids=lambda p: p.parent.name)
def test_every_name_of_that_day_is_there_and_can_be_called_as_it_was(frozen: Path) -> None:
    then, now = _entries(frozen.read_text()), _entries(surface())
    assert not then.keys() - now.keys(), "gone, though the surface is frozen"
    changed = {name: (was, now[name]) for name, was in then.items() if not _takes_as_much(now[name], was)}
    assert not changed


def _entries(text: str) -> dict[str, list[str]]:
    """Of each name, with its package and class before it, the parameters."""
    found = {}
    package = owner = ""
    for line in text.splitlines():
        if line.startswith("# "):
            package = line[2:]
            continue
        inner = line.startswith("    ")
        name, _, rest = line.strip().partition("(")
        if name.startswith("class "):
            owner, (_, _, rest) = name, rest.partition(")")  # the bases stand first
            rest = rest.removeprefix("(")
        found[f"{package} {owner if inner else ''} {name}"] = _parameters(rest)
    return found


def _parameters(text: str) -> list[str]:
    """Split `a: int, b: dict[str, int] = {}) -> None` where a comma stands outside of brackets."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break  # the parenthesis that closes the signature
        if letter == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    return [p for p in [*parts, part.strip()] if p and p not in ("self", "cls", "/")]


def _takes_as_much(now: list[str], then: list[str]) -> bool:
    """Whether a call of then is one of now: its parameters have their places and are as free as they were, and what is new may
    be left out."""
    found = {_name(p): p for p in now}
    names = {_name(p) for p in then} - {"*"}
    kept = names <= found.keys() and all(_optional(found[_name(p)]) for p in then if p != "*" and _optional(p))
    places = _by_position(then)
    return (
        kept and all(_optional(p) for p in now if _name(p) not in names) and _by_position(now)[: len(places)] == places
    )


def _optional(parameter: str) -> bool:
    return "=" in parameter or parameter.startswith("*")


def _by_position(parameters: list[str]) -> list[str]:
    """Those that may be given without their names."""
    names = [_name(p) for p in parameters]
    return list(itertools.takewhile(lambda name: not name.startswith("*"), names))


def _name(parameter: str) -> str:
    return re.split(r"[:=\s]", parameter, maxsplit=1)[0]


def test_a_change_that_breaks_a_caller_is_found() -> None:
    then = _entries("# sdk\nclass A(Base)(x: 'int', *, y: 'dict[str, int]' = {})\n    go(self, z: 'int') -> 'None'")
    fine = _entries("# sdk\nclass A()(x: 'int | None', *, y: 'Any' = 1, w=2)\n    go(self, z, more=None)")
    assert all(_takes_as_much(fine[name], was) for name, was in then.items())
    worse = _entries("# sdk\nclass A()(y, x)\n    go(self, z, more)")
    assert not any(_takes_as_much(worse[name], was) for name, was in then.items())


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("a, b=1", "a, b"),
        ("a, b", "a, *, b"),
        ("a, b", "a, *more, b"),
        ("a, *, b=1", "a, *, b"),
        ("a, *, b=1", "a, *, c, b=1"),
        ("a, b=1", "a, c=2, b=1"),
        ("a, b=1, **rest", "a, b=1"),
    ],
)
def test_a_parameter_stays_as_free_as_it_was(was: str, is_now: str) -> None:
    assert not _takes_as_much(_parameters(is_now), _parameters(was))


@pytest.mark.parametrize(
    ("was", "is_now"), [("a, *, b", "a, b"), ("a, b", "a, b=1"), ("a", "a, *, b=1"), ("a, *, b=1", "a, *, c=2, b=1")]
)
def test_a_parameter_may_become_freer(was: str, is_now: str) -> None:
    assert _takes_as_much(_parameters(is_now), _parameters(was))

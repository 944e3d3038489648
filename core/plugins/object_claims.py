"""Installed metadata → claims to named objects (see objects.py). Imports nothing of a plugin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import importlib_metadata

from sdk import __version__ as SDK_VERSION
from sdk._api import DISTRIBUTION, ENTRY_POINT_GROUP, GROUP_MAJOR, GROUP_PREFIX

from .claims import ALLOW_LIST, Claim, allow_list
from .requirements import pip_line, sdk_requirement

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def scan_objects(kind: str) -> Iterator[Claim]:
    """The entries of one group in every distribution on the path, first come first, as imports do.

    Args:
        kind: The end of the group's name, e.g. `"quantization"`.
    """
    allowed, seen = allow_list(), set[str]()
    for distribution in importlib_metadata.Distribution.discover():
        claims = _read(distribution, kind)
        if not claims or claims[0].key in seen:
            continue
        seen.add(claims[0].key)
        hidden = allowed is not None and claims[0].key not in allowed and claims[0].key != DISTRIBUTION
        for claim in claims:
            reason = f"the allow-list {ALLOW_LIST} leaves it out"
            yield replace(claim, state="disabled", reason=reason) if hidden else claim


def _read(distribution: importlib_metadata.Distribution, kind: str) -> list[Claim]:
    """The claims of one distribution; none where its metadata cannot be read: it must not keep the others from being found."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if f".{kind}]" not in text:
            return []
        metadata, location = distribution.metadata, str(distribution.locate_file(""))
        name, version = str(metadata["Name"]), str(metadata["Version"])
        requires = tuple(str(item) for item in metadata.get_all("Requires-Dist") or ())
        unmet = sdk_requirement(requires)
        return [
            _judged(
                Claim(entry, "object", target, name, version, f"v{major}", "wheel", location, requires), major, unmet
            )
            for major, entry, target in _entries(text, kind)
        ]
    except Exception:
        return []


def _entries(text: str, kind: str) -> Iterator[tuple[str, str, str]]:
    """(major, name, value) of every entry in the group, of whatever major version."""
    group = re.compile(rf"{re.escape(GROUP_PREFIX)}(?P<major>[^.]*)\.{re.escape(kind)}")
    found: re.Match[str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            found = group.fullmatch(line.strip("[]"))
        elif found and "=" in line and not line.startswith("#"):
            name, value = (part.strip() for part in line.split("=", 1))
            yield found["major"], name, value


def _judged(claim: Claim, major: str, unmet: str | None) -> Claim:
    """The claim with what can be said against it."""
    if major != str(GROUP_MAJOR):
        reason = f"it is written for API v{major}, and this engine reads {ENTRY_POINT_GROUP}"
        return replace(claim, state="incompatible", reason=reason)
    if unmet is not None:
        reason = f"it needs {unmet}, and {SDK_VERSION} is installed; {pip_line(unmet)}"
        return replace(claim, state="incompatible", reason=reason)
    if not _TARGET.fullmatch(claim.module):
        return replace(claim, state="quarantined", reason=f"{claim.module!r} is no 'module:attribute'")
    return claim

"""Installed metadata → `Claim`s: which distribution says that it runs which architecture. Imports no plugin.

First station of discovery: claims → decision → loading. The entry-point group is the major version of the API, the
entry's name the architecture, its value the plugin's torch-free module.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import importlib_metadata

from sdk import __version__ as SDK_VERSION
from sdk._api import DISTRIBUTION, ENTRY_POINT_GROUP, FALLBACK, GROUP_MAJOR

from .requirements import normalised, pip_line, sdk_requirement

ALLOW_LIST = "ENGINE_PLUGINS"
_GROUP = re.compile(r"engine\.v(?P<major>[^.]*)(?P<model_types>\.model_types)?")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

Kind = Literal["architecture", "model_type", "object"]
ClaimState = Literal["ready", "disabled", "incompatible", "quarantined"]


@dataclass(frozen=True)
class Claim:
    """One entry point of one distribution: "I run this".

    Attributes:
        name: The architecture or the model_type; `"*"` for a fallback. Of an object (see objects.py), its key.
        kind: Which of them the name is.
        module: The plugin module to import when the name is asked for; of an object `"module:attribute"`.
        distribution, version: As the metadata spells them.
        api: The entry-point group's major, e.g. `"v1"`.
        origin: `"wheel"`, `"editable"`, or the folder that holds the metadata.
        location: The folder that holds the metadata, always.
        requires: The distribution's Requires-Dist.
        state, reason: What metadata and the allow-list prove; a conflict is a matter of several claims, not of one.
    """

    name: str
    kind: Kind
    module: str
    distribution: str
    version: str
    api: str
    origin: str
    location: str
    requires: tuple[str, ...] = ()
    state: ClaimState = "ready"
    reason: str = ""

    @property
    def key(self) -> str:
        """The distribution's name as names are compared."""
        return normalised(self.distribution)

    @property
    def plugin(self) -> str:
        """How messages call the plugin: `"engine-plugin-llava 0.1.0"`."""
        return f"{self.distribution} {self.version}"

    @property
    def is_fallback(self) -> bool:
        """Whether it is asked only when nobody claims the name."""
        return self.name == FALLBACK


@dataclass(frozen=True)
class Scan:
    """What one look at the installed metadata found.

    Attributes:
        claims: Every claim, one copy of each distribution.
        notes: What a user should hear: names in the allow-list that are not there, copies that hide each other.
    """

    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()


def allow_list() -> frozenset[str] | None:
    """The normalised names in `ENGINE_PLUGINS`; `None` where it is not set, which allows every plugin."""
    value = os.environ.get(ALLOW_LIST)
    return None if value is None else frozenset(normalised(item) for item in value.split(",") if item.strip())


def scan(folders: Iterable[Path] | None = None, allowed: frozenset[str] | None = None) -> Scan:
    """Read the claims of all distributions, first on the path first, as imports do.

    Args:
        folders: Where to look; by default, everything on `sys.path`.
        allowed: Normalised names of the distributions that may be used; `None`: all.
    """
    found: dict[str, tuple[Claim, ...]] = {}
    notes: list[str] = []
    where = {} if folders is None else {"path": [str(folder) for folder in folders]}
    for distribution in importlib_metadata.Distribution.discover(**where):
        claims = read_claims(distribution)
        if not claims:
            continue
        first = found.setdefault(claims[0].key, claims)[0]
        if first is not claims[0] and _copy(first) != _copy(claims[0]):
            notes.append(
                f"{first.plugin} is installed twice: {first.location} is used, "
                f"{claims[0].version} in {claims[0].location} is hidden; uninstall one of them"
            )
    if allowed is not None:
        found = {key: claims if key in allowed else _disabled(claims) for key, claims in found.items()}
        unknown = allowed - set(found)
        if unknown:  # some bring no model but, say, a quantization scheme
            unknown -= plugin_distributions()
        notes += [f"{ALLOW_LIST} names {name!r}, which is no installed plugin" for name in sorted(unknown)]
    everything = [claim for claims in found.values() for claim in claims]
    return Scan(tuple(sorted(everything, key=lambda claim: (claim.key, claim.kind, claim.name))), tuple(notes))


def plugin_distributions() -> frozenset[str]:
    """The normalised names of all distributions with an entry in any group of ours."""
    found = set()
    for distribution in importlib_metadata.Distribution.discover():
        try:
            if "[engine.v" in (distribution.read_text("entry_points.txt") or ""):
                found.add(normalised(str(distribution.metadata["Name"])))
        except Exception:
            continue  # as in read_claims
    return frozenset(found)


def read_claims(distribution: importlib_metadata.Distribution) -> tuple[Claim, ...]:
    """The claims of one distribution; none for one that is no plugin, or whose metadata cannot be read."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if "[engine.v" not in text:  # nearly every distribution; the rest of its metadata is not worth reading
            return ()
        entries = list(_entries(text))
        metadata = distribution.metadata
        name, version = str(metadata["Name"]), str(metadata["Version"])
        requires = tuple(str(item) for item in metadata.get_all("Requires-Dist") or ())
    except Exception:
        return ()  # broken metadata of anybody must not keep the others from being found
    if not entries:
        return ()
    location = str(distribution.locate_file(""))
    unmet = sdk_requirement(requires)
    origin = _origin(distribution, location)
    claims = [
        _judged(Claim(entry, kind, module, name, version, f"v{major}", origin, location, requires), major, unmet)
        for major, kind, entry, module in entries
    ]
    return tuple(_merged(claims))


def _entries(text: str) -> Iterator[tuple[str, Kind, str, str]]:
    """(major, kind, name, value) of every entry in a group of ours."""
    group = None
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            group = _GROUP.fullmatch(line.strip("[]"))
        elif group and "=" in line and not line.startswith("#"):
            name, value = (part.strip() for part in line.split("=", 1))
            yield group["major"], "model_type" if group["model_types"] else "architecture", name, value


def _judged(claim: Claim, major: str, unmet: str | None) -> Claim:
    """The claim with what can be said against it."""
    if major != str(GROUP_MAJOR):
        return replace(claim, state="incompatible", reason=_wrong_major(claim, major))
    if unmet is not None:
        reason = f"needs {unmet}, and {SDK_VERSION} is installed; {pip_line(unmet)}, or another version of the plugin"
        return replace(claim, state="incompatible", reason=reason)
    if not _MODULE.fullmatch(claim.module):
        reason = f"the entry point {claim.name} = {claim.module!r} does not name a module"
        return replace(claim, state="quarantined", reason=reason)
    return claim


def _wrong_major(claim: Claim, major: str) -> str:
    ours = f"this engine reads {ENTRY_POINT_GROUP}"
    if not major.isdecimal():
        return f"its entry-point group names no API version ('engine.v{major}'); {ours}"
    if int(major) > GROUP_MAJOR:
        return f"was written for API v{major}, which is newer than this engine's ({ours}); " + pip_line(
            "--upgrade", DISTRIBUTION
        )
    return f"was written for API v{major}, which is older than this engine's ({ours}); " + pip_line(
        "--upgrade", claim.distribution
    )


def _merged(claims: Sequence[Claim]) -> Iterator[Claim]:
    """One claim a name: entries of our own API version come first; two that differ are a mistake of the plugin."""
    by_name: dict[tuple[Kind, str], list[Claim]] = {}
    for claim in claims:
        by_name.setdefault((claim.kind, claim.name), []).append(claim)
    for same in by_name.values():
        usable = [claim for claim in same if claim.state != "incompatible"] or same
        modules = sorted({claim.module for claim in usable})
        if len(modules) > 1:
            reason = f"its metadata names {usable[0].name} twice, for {' and '.join(modules)}"
            yield replace(usable[0], state="quarantined", reason=reason)
        else:
            yield usable[0]


def _disabled(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(
        replace(claim, state="disabled", reason=f"left out by the allow-list {ALLOW_LIST}") for claim in claims
    )


def _origin(distribution: importlib_metadata.Distribution, location: str) -> str:
    """How the distribution came here."""
    direct = distribution.read_text("direct_url.json")
    if direct and "editable" in direct:
        try:
            if json.loads(direct).get("dir_info", {}).get("editable"):
                return "editable"
        except (ValueError, AttributeError):
            pass
    return "wheel" if distribution.read_text("WHEEL") is not None else location


def _copy(claim: Claim) -> tuple[str, Path]:
    """What tells two copies of a distribution apart; a folder that is on the path twice holds one copy."""
    return claim.version, Path(claim.location).resolve()

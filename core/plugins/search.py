"""Search: which plugin runs what somebody has in mind, among those installed and those this project offers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .catalog import Catalog
from .missing import known_plugins
from .requirements import pip_line

_NEAR = 0.7


@dataclass(frozen=True)
class Found:
    """A plugin that a search found.

    Attributes:
        distribution: Its name.
        architectures: Those that fit what was looked for; all of them where the name fits.
        installed: Its version; None: it is not installed.
        install: The command that installs it, where it is not.
    """

    distribution: str
    architectures: tuple[str, ...]
    installed: str | None
    install: str | None

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**asdict(self), "architectures": list(self.architectures)}


def search(catalog: Catalog, query: str) -> list[Found]:
    """Plugins whose name, architectures or model types contain the query; where none does, those of a similar name.

    Args:
        catalog: What is installed.
        query: Any part of a name, in any case.
    """
    offers: dict[str, set[str]] = {}
    for architecture, distribution in known_plugins().items():
        offers.setdefault(distribution, set()).add(architecture)
    names: dict[str, set[str]] = {distribution: set() for distribution in offers}
    versions: dict[str, str] = {}
    for claim in catalog.claims():
        if claim.kind == "architecture":
            offers.setdefault(claim.distribution, set()).add(claim.name)
        names.setdefault(claim.distribution, set()).add(claim.name)
        versions[claim.distribution] = claim.version
    wanted = _plain(query)
    found = []
    for distribution in sorted(offers):
        own = offers[distribution]
        fitting = own if _fits(wanted, [distribution]) else {a for a in own if _fits(wanted, [a])}
        if not fitting and _fits(wanted, names[distribution]):  # a model type
            fitting = own
        if fitting:
            found.append(_found(distribution, fitting, versions))
    return found or _similar(wanted, offers, versions)


def _similar(wanted: str, offers: dict[str, set[str]], versions: dict[str, str]) -> list[Found]:
    plain = {_plain(architecture): (owner, architecture) for owner, own in offers.items() for architecture in own}
    near = difflib.get_close_matches(wanted, plain, 2, _NEAR)
    return [_found(plain[name][0], {plain[name][1]}, versions) for name in near]


def _found(distribution: str, architectures: Iterable[str], versions: dict[str, str]) -> Found:
    installed = versions.get(distribution)
    return Found(
        distribution,
        tuple(sorted(architectures)),
        installed,
        None if installed is not None else pip_line(distribution),
    )


def _plain(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _fits(wanted: str, names: Iterable[str]) -> bool:
    return bool(wanted) and any(wanted in _plain(name) for name in names)

"""Names, versions and requirements of distributions: the few questions that discovery asks of packaging."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import importlib_metadata

from sdk import __version__ as SDK_VERSION
from sdk._api import DISTRIBUTION

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it: `Engine_Plugin.Llava` is `engine-plugin-llava`."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()


def sdk_requirement(requires: Iterable[str]) -> str | None:
    """The requirement on our own distribution that is not met by the running SDK, if there is one."""
    for requirement in requires:
        if normalised(requirement_name(requirement)) == DISTRIBUTION and not is_met(
            requirement, {DISTRIBUTION: SDK_VERSION}
        ):
            return requirement
    return None


def unmet(requires: Iterable[str]) -> list[str]:
    """Those of the requirements that the installed distributions do not meet; unparsable ones count as unmet."""
    return [requirement for requirement in requires if not is_met(requirement, {DISTRIBUTION: SDK_VERSION})]


def is_met(requirement: str, known: dict[str, str] | None = None) -> bool:
    """Whether one PEP 508 requirement is met here; one whose marker does not apply is.

    Args:
        requirement: E.g. `"transformers>=5.16,<6; python_version >= '3.11'"`.
        known: Normalised name → version of what need not be looked up.
    """
    from packaging.requirements import InvalidRequirement
    from packaging.version import InvalidVersion

    try:
        wanted = _parsed(requirement)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            return True
        name = normalised(wanted.name)
        version = (known or {}).get(name) or importlib_metadata.version(wanted.name)
        return wanted.specifier.contains(version, prereleases=True)
    except (InvalidRequirement, InvalidVersion, importlib_metadata.PackageNotFoundError):
        return False


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement is about."""
    found = re.match(r"\s*([\w.-]+)", requirement)
    return found[1] if found else ""


@functools.lru_cache(maxsize=512)
def _parsed(requirement: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(requirement)


def pip_line(*requirements: str) -> str:
    """The command that a user copies."""
    return "pip install " + " ".join(f"'{item}'" if re.search(r"[<>=!~;\[ ]", item) else item for item in requirements)

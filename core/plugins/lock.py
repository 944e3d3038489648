"""A lock: the plugins of an environment, to the byte, and which of them answers each architecture.

What `engine plugins lock` writes and `engine plugins lock --check` compares with what is installed. No plugin code runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sdk import __version__ as SDK_VERSION
from sdk.errors import InvalidConfigError

from .catalog import Catalog
from .claims import Claim
from .decision import Pins
from .record import digest_of_code

FORMAT = 1


def make_lock(catalog: Catalog, pins: Pins | None = None) -> dict[str, Any]:
    """The lock of what is installed.

    Args:
        catalog: What is installed.
        pins: Architecture → distribution, where the user has chosen.

    Returns:
        `plugins`: distribution → version and SHA-256 of its code, the same wherever the same files are installed;
        `architectures`: architecture → the distribution that answers it.

    Raises:
        PluginConflictError: Two answer an architecture, and nobody has chosen.
    """
    usable = [claim for claim in catalog.claims() if claim.state == "ready"]
    plugins: dict[str, Any] = {}
    for claim in sorted(usable, key=lambda claim: claim.key):
        plugins.setdefault(claim.key, {"version": claim.version, "sha256": _digest(claim.key, usable)})
    answers = {}
    for name in sorted({c.name for c in usable if c.kind == "architecture" and not c.is_fallback}):
        decision = catalog.decide(name, pins=pins)
        if decision.error is not None:
            raise decision.error
        if decision.chosen is not None:
            answers[name] = decision.chosen.key
    return {"format": FORMAT, "sdk": SDK_VERSION, "plugins": plugins, "architectures": answers}


def read_lock(text: str) -> Mapping[str, Any]:
    """A lock from its text.

    Raises:
        InvalidConfigError: It is none, or of a format that this version does not know.
    """
    try:
        lock = json.loads(text)
    except ValueError as e:
        raise InvalidConfigError(f"not a lock of plugins: {e}", param="--check") from None
    if not isinstance(lock, dict) or lock.get("format") != FORMAT or not {"plugins", "architectures"} <= set(lock):
        raise InvalidConfigError(
            f"not a lock of plugins of format {FORMAT}; write one: engine plugins lock", param="--check"
        )
    return lock


def differences(locked: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What differs between a lock and another, a sentence each."""
    if locked.get("sdk") != found["sdk"]:
        yield f"engine-plugin-sdk {found['sdk']} is installed, {locked.get('sdk')} is locked"
    for name in sorted({*locked["plugins"], *found["plugins"]}):
        theirs, ours = locked["plugins"].get(name), found["plugins"].get(name)
        if ours is None:
            yield f"{name} {theirs['version']} is locked, and not installed: pip install {name}=={theirs['version']}"
        elif theirs is None:
            yield f"{name} {ours['version']} is installed, and not locked: pip uninstall {name}, or lock again"
        elif theirs["version"] != ours["version"]:
            yield f"{name} {ours['version']} is installed, {theirs['version']} is locked: pip install {name}=={theirs['version']}"
        elif theirs["sha256"] != ours["sha256"]:
            yield f"{name} {ours['version']} has other files than those that were locked: install it again"
    for name in sorted({*locked["architectures"], *found["architectures"]}):
        theirs, ours = locked["architectures"].get(name), found["architectures"].get(name)
        if theirs != ours and theirs is not None and ours is not None:
            yield f"{name} is answered by {ours}, and by {theirs} in the lock: --plugin {name}={theirs}"


def _digest(key: str, claims: list[Claim]) -> str:
    return digest_of_code({claim.module.partition(":")[0] for claim in claims if claim.key == key})

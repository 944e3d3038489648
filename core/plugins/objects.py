"""Registries of named objects that plugins bring besides models: an entry-point group each, the entry's name is the key.

    [project.entry-points."engine.v1.quantization"]
    my-scheme = "my_package.scheme:MyConfig"

Our own objects are entries of our own distribution, so that an outsider's are no different. Listing reads metadata and imports
nothing; what is asked for is imported then.
"""

from __future__ import annotations

import difflib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from sdk._api import ENTRY_POINT_GROUP
from sdk.errors import (
    InvalidRequestError,
    PluginConflictError,
    PluginMissingError,
    PluginVersionError,
)
from sdk.registry import IN_PROCESS, identity

from .claims import ALLOW_LIST, Claim
from .faults import broken, import_error, is_strict
from .guard import Watch, watch_import
from .object_claims import scan_objects
from .requirements import normalised

Check = Callable[[str, Any], str | None]
"""(name, object) → what is wrong with it, in words that follow its name; None: nothing."""


class NoSuchObjectError(PluginMissingError, KeyError):
    """Nobody brings an object of this name; a `KeyError`, as mappings raise it."""

    def __str__(self) -> str:
        return self.message


class ObjectRegistry(Mapping[str, Any]):
    """The objects of one kind, by name: a read-only view of what is installed, plus `register` for this process.

    Args:
        kind: The end of the group's name, e.g. `"quantization"`.
        noun: What such an object is called in messages, e.g. `"quantization scheme"`.
        check: What every object is checked with.
    """

    def __init__(self, kind: str, noun: str, check: Check) -> None:
        self.group, self._kind, self._noun, self._check = f"{ENTRY_POINT_GROUP}.{kind}", kind, noun, check
        self._registered: dict[str, Any] = {}
        self._loaded: dict[Claim, Any] = {}
        self._lock = threading.RLock()
        self._scanned: tuple[Any, tuple[Claim, ...]] | None = None

    def __getitem__(self, name: str) -> Any:
        return self.resolve(name)

    def resolve(self, name: str, pins: Mapping[str, str] | None = None) -> Any:
        """The object of a name.

        Args:
            name: Its key.
            pins: Name → distribution, where two bring one.

        Raises:
            PluginMissingError: Nobody brings it; the nearest name is given.
            PluginConflictError: Two distributions do.
            PluginVersionError, PluginImportError, PluginContractError: The one that does cannot be used.
        """
        pin = (pins or {}).get(name)
        with self._lock:
            if name not in self._registered or pin not in (None, IN_PROCESS):
                return self._load(self._chosen(name, pin))
            value = self._registered[name]
            return self._load(_by_hand(name, value)) if isinstance(value, str) else value

    def register(self, name: str, value: Any, *, replace: bool = False) -> None:
        """Add an object in this process, where it comes before what is installed.

        Args:
            name: Its key.
            value: The object, or `"module:attribute"`.
            replace: Whether another registration may be replaced.
        """
        if not isinstance(name, str) or not name.strip():
            raise InvalidRequestError(f"a {self._noun} is registered under a name, not {name!r}", param="name")
        if isinstance(value, str):
            if not value.partition(":")[2]:
                raise InvalidRequestError(f"register an object or 'module:attribute', not {value!r}", param="value")
        elif (why := self._check(name, value)) is not None:
            raise InvalidRequestError(f"{value!r:.80} {why}", param="value")
        with self._lock:
            known = self._registered.get(name)
            if known is not None and not replace and identity(known) != identity(value):
                raise PluginConflictError(
                    f"the {self._noun} {name!r} is registered already, as {identity(known)}; pass replace=True",
                    plugin=IN_PROCESS,
                )
            self._registered[name] = value

    def unregister(self, name: str) -> None:
        """Forget what was registered in this process; nothing happens if there was nothing."""
        with self._lock:
            self._registered.pop(name, None)

    def claims(self) -> tuple[Claim, ...]:
        """What the installed metadata names; cached until the path or the allow-list changes."""
        key = (tuple(sys.path), os.environ.get(ALLOW_LIST))
        with self._lock:
            if self._scanned is None or self._scanned[0] != key:
                self._scanned = key, tuple(scan_objects(self._kind))
            return self._scanned[1]

    def __iter__(self) -> Iterator[str]:
        ready = {claim.name for claim in self.claims() if claim.state == "ready"}
        return iter(sorted(ready | set(self._registered)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def __repr__(self) -> str:
        return (
            f"<registry of {self._noun}s: {', '.join(self) or 'none'}; register(name, object) adds one in this process>"
        )

    def _chosen(self, name: str, pin: str | None) -> Claim:
        own = [claim for claim in self.claims() if claim.name == name]
        ready = [claim for claim in own if claim.state == "ready"]
        if pin is not None:
            ready = [claim for claim in ready if claim.key == normalised(pin)]
            if not ready:
                raise NoSuchObjectError(f"{pin}, chosen for the {self._noun} {name!r}, does not bring it", param=name)
        if len(ready) > 1:
            raise PluginConflictError(
                f"the {self._noun} {name!r} is brought by {' and by '.join(claim.plugin for claim in ready)}; choose one "
                f"with plugins={{{name!r}: {ready[0].distribution!r}}}, or uninstall the other",
                param=name,
            )
        if ready:
            return ready[0]
        if own:
            raise PluginVersionError(
                f"{own[0].plugin} brings the {self._noun} {name!r}, but {own[0].reason}", plugin=own[0].plugin
            )
        known = list(self)
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise NoSuchObjectError(f"no installed plugin brings the {self._noun} {name!r}; {hint}", param=name)

    def _load(self, claim: Claim) -> Any:
        """Import an object, once; a failure is told each time, since it may have been repaired."""
        if claim not in self._loaded:
            value = _import(claim)
            if (why := self._check(claim.name, value)) is not None:
                raise broken(claim, f"{claim.module} {why}")
            self._loaded[claim] = value
        return self._loaded[claim]


def _by_hand(name: str, target: str) -> Claim:
    """What stands for a target that was registered in this process."""
    return Claim(name, "object", target, IN_PROCESS, "", ENTRY_POINT_GROUP, IN_PROCESS, "")


def _import(claim: Claim) -> Any:
    from .loading import import_module, warn_of

    module, _, attribute = claim.module.partition(":")
    watch = Watch()
    try:
        # What torch and the like set when they are first imported, and how long that takes, is not the plugin's doing.
        with watch_import(environment=False, slow_after=float("inf")) as watch:
            return attrgetter(attribute)(import_module(claim, module))
    except AttributeError as error:
        if is_strict():
            raise
        raise import_error(claim, claim.module, error) from error
    finally:
        warn_of(claim, claim.module, watch)

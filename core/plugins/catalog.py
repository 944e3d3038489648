"""`Catalog`: the installed plugins as the rest of `core` asks for them. Looking is cheap; loading happens when asked.

claims (metadata) ─► decision (who answers) ─► loading (import, hook, checks) ─► ResolvedPlugin
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sdk.errors import PluginError
from sdk.registry import register, registered

from .claims import ALLOW_LIST, Claim, Scan, allow_list, scan
from .decision import Decision, Pins, candidates_for_model_type, contest, decide
from .guard import PluginWarning
from .missing import missing_model_type
from .requirements import normalised
from .status import PluginStatus, statuses

if TYPE_CHECKING:
    from sdk.config_view import ConfigView
    from sdk.spec import Architecture, Capabilities, Role

    from .loading import Loader
    from .resolved import ResolvedPlugin

_EXTRA_PARTS = ("tiny", "demo")
"""Parts that a model runs without."""
_PluginKey = tuple[str, str]
_noted: ContextVar[dict[str, ResolvedPlugin] | None] = ContextVar("noted", default=None)
"""Where `Catalog.noting` writes."""


class Catalog:
    """What is installed, who answers what, and what has failed so far.

    One plugin that fails is quarantined: its architectures raise its error, all others go on working.
    """

    _cache: ClassVar[dict[Any, Catalog]] = {}
    _only: ClassVar[Catalog | None] = None
    _cache_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, found: Scan, *, pins: Pins | None = None) -> None:
        """Make a catalog of these claims; see `installed` for the usual one.

        Args:
            found: The claims.
            pins: Choices that hold unless a call brings others.
        """
        self._claims = found.claims
        self.notes = found.notes
        self._pins: Mapping[str, str] = dict(pins or {})
        self._lock = threading.RLock()
        self._loader: Loader | None = None
        self._records: dict[_PluginKey, tuple[list[Architecture], list[str]]] = {}
        self._failures: dict[_PluginKey, PluginError] = {}
        self._broken_parts: dict[tuple[str, str], PluginError] = {}
        self._resolved: dict[tuple[str, str], ResolvedPlugin] = {}
        self._told = False

    @classmethod
    def installed(cls, *, refresh: bool = False) -> Catalog:
        """The catalog of this process: what `sys.path` and `ENGINE_PLUGINS` let it see; cached until they change.

        Args:
            refresh: Look again, after a plugin was installed or repaired while the process runs.
        """
        key = (tuple(sys.path), os.environ.get(ALLOW_LIST))
        with cls._cache_lock:
            if cls._only is not None:
                return cls._only
            if refresh or key not in cls._cache:
                cls._cache.clear()
                cls._cache[key] = cls(scan(allowed=allow_list()))
            return cls._cache[key]

    @classmethod
    def use(cls, catalog: Catalog) -> None:
        """Have this process, a worker, know this catalog and look for no other."""
        cls._only = catalog

    @staticmethod
    @contextlib.contextmanager
    def noting() -> Iterator[dict[str, ResolvedPlugin]]:
        """Note what is resolved meanwhile, parts of models too: architecture → plugin. A worker needs their records."""
        noted: dict[str, ResolvedPlugin] = {}
        token = _noted.set(noted)
        try:
            yield noted
        finally:
            _noted.reset(token)

    @classmethod
    def of(cls, *folders: Path, allowed: frozenset[str] | None = None) -> Catalog:
        """The catalog of these folders and of nothing else that is installed; they must be on `sys.path` to be loaded.

        Args:
            folders: Folders that hold metadata, first come first, as on a path.
            allowed: Normalised names of the distributions that may be used; `None`: all.
        """
        return cls(scan(folders, allowed))

    def claims(self) -> list[Claim]:
        """Every claim, also those that cannot be used."""
        return list(self._claims)

    def plugins(self) -> list[PluginStatus]:
        """One line for each distribution: what metadata proves, and what has failed in this process so far."""
        failures = {distribution: error for (distribution, _), error in (self._failures | self._broken_parts).items()}
        return statuses(self._claims, failures)

    def decide(self, architecture: str, *, pins: Pins | None = None) -> Decision:
        """Who answers an architecture and why; imports nothing."""
        registration = registered().get(architecture)
        in_process = registration is not None and "model" in registration.parts
        return decide(architecture, self._claims, pins={**self._pins, **(pins or {})}, in_process=in_process)

    def why(self, architecture: str, pins: Pins | None = None) -> list[str]:
        """The decision in sentences, the outcome last."""
        decision = self.decide(architecture, pins=pins)
        lines = list(decision.lines)
        if decision.error is not None:
            return [*lines, str(decision.error)]
        overlaid = sorted(getattr(registered().get(architecture), "parts", {}))
        if overlaid:
            lines.append(f"Registered by hand in this process: {', '.join(overlaid)}.")
        return [*lines, f"{architecture} is run by {decision.answer}."]

    def resolve(self, architecture: str, *, pins: Pins | None = None) -> ResolvedPlugin:
        """The plugin that runs an architecture; imports its torch-free plugin module.

        Args:
            architecture: The HF architecture string.
            pins: Architecture → distribution, where the user has chosen.

        Raises:
            PluginMissingError, PluginConflictError, PluginVersionError, PluginImportError, PluginContractError
        """
        self._tell_notes()
        decision = self.decide(architecture, pins=pins)
        if decision.error is not None:
            raise decision.error
        with self._lock:
            plugin = self._build(architecture, None if decision.in_process else decision.chosen)
        return self._with_parts(plugin, pins)

    def resolve_model_type(self, model_type: str, role: str, *, pins: Pins | None = None) -> ResolvedPlugin:
        """The plugin for a sub-config, which has a model_type and no architecture.

        Args:
            model_type: The sub-config's `model_type`.
            role: What the part is used as, e.g. `"causal-lm"` or `"vision-encoder"`.
            pins: Architecture or model_type → distribution.

        Raises:
            The errors of `resolve`.
        """
        self._tell_notes()
        chosen = {**self._pins, **(pins or {})}
        by_hand = _registered_for(model_type, role)
        if by_hand is not None:
            return self.resolve(by_hand, pins=chosen)
        with self._lock:
            claim, record = self._only_match(model_type, role, chosen)
            if "model" in getattr(registered().get(record.name), "parts", {}):
                return self.resolve(record.name, pins=chosen)
            plugin = self._build(record.name, replace(claim, name=record.name, kind="architecture"))
        return self._with_parts(plugin, pins)

    def check(self, *, timeout: float = 60.0, workers: int = 4) -> list[PluginStatus]:
        """Import every plugin in a child process of its own and add what broke; see `check_plugins`."""
        from .check import check_plugins

        return check_plugins(self, timeout=timeout, workers=workers)

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> Catalog:
        """A worker's catalog: exactly the plugins that these records name, verified and imported.

        Raises:
            PluginContractError, PluginVersionError: This process does not have what a record names.
        """
        from .record import check_targets, claims_of

        claims = {claim for record in records for claim in claims_of(record)}
        pins = {record["architecture"]: record["distribution"] for record in records}
        catalog = cls(Scan(tuple(sorted(claims, key=lambda claim: (claim.key, claim.kind, claim.name)))), pins=pins)
        for record in records:
            by_hand = record["registered"]
            for part, target in by_hand["parts"].items():
                register(record["architecture"], target, part=part, replace=True, **by_hand["fields"])
            check_targets(catalog.resolve(record["architecture"]), record)
        return catalog

    def _with_parts(self, plugin: ResolvedPlugin, pins: Pins | None) -> ResolvedPlugin:
        """The plugin, and the way from it to the plugins that run the parts of its models, under the same choices."""

        def parts(config: ConfigView, role: Role, model_type: str | None) -> Capabilities:
            if config.architecture is not None:
                return self.resolve(config.architecture, pins=pins).capabilities(config)
            named = config.get("model_type") or model_type or ""
            return self.resolve_model_type(named, role, pins=pins).capabilities(config)

        noted = _noted.get()
        if noted is not None:
            noted[plugin.architecture.name] = plugin
        return replace(plugin, parts=parts)

    def _build(self, architecture: str, claim: Claim | None) -> ResolvedPlugin:
        """The resolved plugin of a claim, or of an in-process registration alone."""
        from .loading import check_requires
        from .resolved import ResolvedPlugin, in_process_claim, overlaid

        registration = registered().get(architecture)
        if claim is not None and registration is not None and "model" in registration.parts:
            registration = None  # the user chose the installed plugin instead of what was registered by hand
        if claim is not None and (claim.key, claim.name) in self._broken_parts:
            raise self._broken_parts[claim.key, claim.name].with_traceback(None)
        key = (architecture, claim.key if claim is not None else "")
        known = self._resolved.get(key)
        if known is not None and known.registration is registration:
            return known
        if claim is None:
            plugin = ResolvedPlugin(overlaid(None, registration), in_process_claim(architecture), registration)
        else:
            records, changes = self._load(claim)
            record = next(record for record in records if record.name == claim.name)
            check_requires(claim, record)
            record = overlaid(record.model_copy(update={"name": architecture}), registration)
            quarantine = functools.partial(self._quarantine, claim)
            plugin = ResolvedPlugin(record, claim, registration, tuple(changes), on_failure=quarantine)
        self._resolved[key] = plugin
        return plugin

    def _load(self, claim: Claim) -> tuple[list[Architecture], list[str]]:
        """Import a plugin module once; its failure is remembered and raised each time it is asked for."""
        key = (claim.key, claim.module)
        if key in self._failures:
            raise self._failures[key].with_traceback(None)
        if key not in self._records:
            from .loading import Loader

            self._loader = self._loader or Loader()
            siblings = [other for other in self._claims if (other.key, other.module) == key]
            try:
                self._records[key] = self._loader.load(siblings)
            except PluginError as error:
                self._failures[key] = error
                raise
        return self._records[key]

    def _quarantine(self, claim: Claim, part: str, error: PluginError) -> None:
        """A part could not be imported: from now on, its architecture raises this error; its plugin's others go on."""
        if part not in _EXTRA_PARTS:
            with self._lock:
                self._broken_parts[claim.key, claim.name] = error

    def _only_match(self, model_type: str, role: str, pins: Pins) -> tuple[Claim, Architecture]:
        """The one plugin that answers a model_type in a role; those that may are loaded to learn the role."""
        candidates = candidates_for_model_type(model_type, role, self._claims, pins)
        matches: list[tuple[Claim, Architecture | None]] = []
        others: list[str] = []
        for claim in candidates:
            try:
                records = [record for record in self._load(claim)[0] if claim.name in record.model_types]
            except PluginError:
                if len(candidates) == 1:
                    raise
                matches.append((claim, None))  # it may have been meant: to pass over it would be to choose
                continue
            fitting = [record for record in records if record.role == role]
            others += [f"{claim.plugin} as {record.role}" for record in records if record.role != role]
            matches += [(claim, record) for record in fitting if _follows(claim, record, pins)]
        if len(matches) == 1 and matches[0][1] is not None:
            return matches[0][0], matches[0][1]
        if matches:
            raise contest(model_type, "model_type", [claim for claim, _ in matches])
        raise missing_model_type(model_type, role, self._claims, others)

    def _tell_notes(self) -> None:
        """Say once what is odd about the installation."""
        if not self._told:
            self._told = True
            for note in self.notes:
                warnings.warn(note, PluginWarning, stacklevel=3)


def verify_record(record: Mapping[str, Any]) -> ResolvedPlugin:
    """In a worker process: check that this process has exactly what a record names, and import exactly that.

    Raises:
        PluginContractError, PluginVersionError: Presence, version, hash or targets differ.
    """
    return Catalog.from_records([record]).resolve(record["architecture"])


def _registered_for(model_type: str, role: str) -> str | None:
    """The architecture registered by hand that answers a model_type in a role."""
    for name, registration in registered().items():
        fields = registration.fields
        if model_type in fields.get("model_types", ()) and fields.get("role", "causal-lm") == role:
            return name
    return None


def _follows(claim: Claim, record: Architecture, pins: Pins) -> bool:
    """Whether the user's choice for the record's architecture, if there is one, is this distribution."""
    return record.name not in pins or normalised(pins[record.name]) == claim.key

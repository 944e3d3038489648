"""Imports a chosen plugin module, registers it with pluggy and validates what its hook says.

Third station of discovery: claims → decision → loading.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pluggy

from sdk._api import GROUP_PREFIX, MODEL_TYPES_SUFFIX
from sdk._faults import in_words
from sdk.errors import PluginVersionError
from sdk.hooks import PROJECT, EngineSpec
from sdk.spec import Architecture

from .claims import Claim
from .faults import broken, describe, import_error, is_strict
from .guard import PluginWarning, Watch, watch_import
from .requirements import pip_line, unmet

HOOK = "engine_architectures"


class Loader:
    """Holds the plugin manager and loads one plugin module at a time; its owner keeps threads apart."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(EngineSpec)
        self._answers: list[Any] = []
        # The hook is historic: this one call is repeated for each plugin at the moment it is registered.
        self._manager.hook.engine_architectures.call_historic(result_callback=self._answers.append)

    def load(self, claims: Sequence[Claim]) -> tuple[list[Architecture], list[str]]:
        """Import the module that these claims name.

        Args:
            claims: All claims of one distribution for one module.

        Returns:
            The records of its hook, and what its import changed in the process, a sentence each.

        Raises:
            PluginImportError: The module cannot be imported.
            PluginContractError: It breaks the contract of the hook or of torch-free import.
        """
        claim, watch = claims[0], Watch()
        try:
            with watch_import() as watch:
                answer = self._register(claim, import_module(claim))
        finally:
            warn_of(claim, claim.module, watch)
        _check_torch_free(claim, watch)
        records = _records(claim, answer)
        _check_agreement(claims, records)
        return records, watch.changes

    def _register(self, claim: Claim, module: ModuleType) -> Any:
        """Hand the module to pluggy; what its hook returned."""
        if self._manager.is_registered(module):
            other = str(self._manager.get_name(module)).split(":")[0]
            raise broken(claim, f"the module {claim.module} is {other}'s as well; uninstall one of the two")
        self._answers.clear()
        try:
            self._manager.register(module, f"{claim.key}:{claim.module}")
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._forget(module)
            raise broken(claim, f"{in_words(error)}{_hint(module)}") from error
        except (Exception, SystemExit) as error:
            self._forget(module)
            if is_strict():
                raise
            raise broken(claim, f"its hook {HOOK}() raised {describe(error)}") from error
        if not self._answers:
            self._forget(module)
            raise broken(claim, f"{claim.module} gives no answer to {HOOK}(){_hint(module)}")
        return self._answers[0]

    def _forget(self, module: ModuleType) -> None:
        if self._manager.is_registered(module):
            self._manager.unregister(module)


def import_module(claim: Claim, module: str | None = None) -> ModuleType:
    """Import a module of a plugin (by default its plugin module); a failure names the plugin."""
    name = module or claim.module
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if is_strict():
            raise
        raise import_error(claim, name, error) from error


def check_requires(claim: Claim, record: Architecture) -> None:
    """Raise `PluginVersionError` when what the record requires is not installed."""
    lacking = unmet(record.requires)
    if lacking:
        raise PluginVersionError(
            f"{claim.plugin} runs {claim.name} only with {', '.join(lacking)}; {pip_line(*lacking)}",
            plugin=claim.plugin,
        )


def warn_of(claim: Claim, target: str, watch: Watch) -> None:
    """Report what an import changed."""
    for change in watch.changes:
        warnings.warn(f"{claim.plugin}: importing {target} {change}", PluginWarning, stacklevel=3)


def _check_torch_free(claim: Claim, watch: Watch) -> None:
    if watch.cuda:
        cure = "touch the device in the model, not in the plugin module"
        raise broken(claim, f"importing {claim.module} initialised CUDA, which breaks worker processes; {cure}")
    if "torch" in watch.heavy:
        cure = "name heavy parts as 'module:attribute' strings and import nothing of them there"
        raise broken(claim, f"importing {claim.module} loaded torch; {cure}")
    if watch.heavy:
        slow = Watch(changes=[f"loaded {' and '.join(watch.heavy)}, which makes every start slow"])
        warn_of(claim, claim.module, slow)
        watch.changes += slow.changes


def _records(claim: Claim, answer: Any) -> list[Architecture]:
    """The hook's answer, checked: a list of `Architecture`s with names of their own."""
    if not isinstance(answer, list | tuple) or not answer:
        raise broken(claim, f"{HOOK}() must return a list of sdk.Architecture, not {answer!r:.80}")
    for item in answer:
        if not isinstance(item, Architecture):
            raise broken(claim, f"{HOOK}() must return sdk.Architecture records; one item is {item!r:.80}")
    names = [item.name for item in answer]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise broken(claim, f"{HOOK}() returns {', '.join(twice)} more than once")
    return list(answer)


def _check_agreement(claims: Sequence[Claim], records: Sequence[Architecture]) -> None:
    """Metadata is the index and the hook is the spec: both must say the same."""
    group = f"{GROUP_PREFIX}{claims[0].api.removeprefix('v')}"
    said = {
        ("architecture", group): {record.name for record in records},
        ("model_type", group + MODEL_TYPES_SUFFIX): {name for record in records for name in record.model_types},
    }
    differences = []
    for (kind, section), by_hook in said.items():
        by_metadata = {claim.name for claim in claims if claim.kind == kind}
        differences += [f"{name} is in [{section}] but not in {HOOK}()" for name in sorted(by_metadata - by_hook)]
        differences += [f"{name} is in {HOOK}() but not in [{section}]" for name in sorted(by_hook - by_metadata)]
    if differences:
        cure = "Make them agree and install it again, so that its metadata is written anew"
        raise broken(claims[0], f"its metadata and its hook disagree: {'; '.join(differences)}. {cure}")


def _hint(module: ModuleType) -> str:
    """What its author probably meant."""
    hook = getattr(module, HOOK, None)
    if callable(hook) and not hasattr(hook, f"{PROJECT}_impl"):
        return f". The function {HOOK} is there but not marked; put @sdk.hookimpl above it"
    near = difflib.get_close_matches(HOOK, [name for name in vars(module) if name != HOOK], n=1, cutoff=0.75)
    if near:
        return f". Did you mean {HOOK} where it says {near[0]}?"
    return f". It needs: @sdk.hookimpl def {HOOK}() -> list[sdk.Architecture]"

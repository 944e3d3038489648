"""A plugin's failure, told: which distribution and version, what happened where, and what to do about it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

from sdk._faults import beside, in_words
from sdk.errors import EngineError, PluginContractError, PluginImportError
from sdk.registry import IN_PROCESS

from .claims import Claim
from .requirements import pip_line, unmet

STRICT = "ENGINE_PLUGINS_STRICT"
_MACHINERY = {"importlib", "pluggy", __name__.split(".")[0]}


def is_strict() -> bool:
    """Whether a plugin's own exceptions are let through, for its author's debugger."""
    return os.environ.get(STRICT, "") not in ("", "0")


def call(claim: Claim, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plugin's function so that whatever it raises names the plugin; typed errors pass as they are."""
    try:
        return function(*arguments)
    except EngineError:
        raise
    except (Exception, SystemExit) as error:
        if is_strict():
            raise
        raise broken(claim, f"{what} raised {describe(error)}") from error


def broken(claim: Claim, message: str) -> PluginContractError:
    """The error for a promise of the SDK's contract that a plugin does not keep."""
    return PluginContractError(f"{claim.plugin} breaks the plugin contract: {message}", plugin=claim.plugin)


def import_error(claim: Claim, target: str, error: BaseException) -> PluginImportError:
    """The error for a module or a part of a plugin that cannot be imported."""
    return PluginImportError(
        f"{claim.plugin}: cannot import {target}: {describe(error)}. {_cure(claim, error)}", plugin=claim.plugin
    )


def describe(error: BaseException) -> str:
    """An exception in one line, with the place in the plugin's code that raised it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).split(".")[0] not in _MACHINERY:
            place = f" ({frame.f_code.co_filename}, line {line})"
    return f"{type(error).__name__}: {in_words(error)}{place}"


def _cure(claim: Claim, error: BaseException) -> str:
    """What to do about an import that failed."""
    if claim.distribution == IN_PROCESS:
        return f"It was registered for {claim.name} in this process; register what can be imported"
    lacking = unmet(claim.requires)
    if lacking:
        return f"What it requires is not installed: {pip_line(*lacking)}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name.split(".")[0] != claim.module.split(".")[0]:
            return f"{claim.distribution} needs the module {error.name!r}, does not declare it, and it is not installed"
        if claim.origin != "wheel" and (said := beside(error.name)):
            return said
        if claim.origin in ("wheel", "editable"):
            return f"The installation is incomplete: {pip_line('--force-reinstall', claim.distribution)}"
        return f"Its metadata in {claim.location} is there, its code is not"
    return (
        f"Other plugins go on working. Update it ({pip_line('--upgrade', claim.distribution)}), or tell its authors; "
        f"{STRICT}=1 shows the whole traceback"
    )

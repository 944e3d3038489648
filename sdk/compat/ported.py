"""`"sdk.compat.ported:module.Class"`: a ported class by a name that can be imported, as records and worker processes need.

The class comes out as `adapt` makes it; what its decorators registered stands at it as `compat_processor`, `compat_info` and
`compat_dummy_inputs`: `"sdk.compat.ported:module.Class.compat_processor"`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


class _Path:
    """A module on the way to a class."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _found(self._module, name)


def _found(module: str, name: str) -> Any:
    from .model import adapt

    value = getattr(importlib.import_module(module), name, None)
    if isinstance(value, type):
        return adapt(value)
    if not _is_module(f"{module}.{name}"):
        raise AttributeError(f"module {module!r} has no class {name!r}")
    return _Path(f"{module}.{name}")


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what stands before the last dot is none, or no package
        return False


def __getattr__(name: str) -> Any:
    if name.startswith("__") or not _is_module(name):
        raise AttributeError(f"there is no module {name!r}")
    return _Path(name)


def target(path: str) -> str:
    """The target under which `"module:Class"` comes out as an `sdk.Model`."""
    return f"{__name__}:{path.replace(':', '.')}"

"""transformers' config classes, without the half of transformers and torch that only its own models need.

Where torch is at hand, transformers checks names of activations by a table that stands beside the activations themselves: a
config of some models then imports their layers, torch's compiler, its distributed tensors and sympy, which takes longer than to
import torch. So while configs are read, that module is one which is loaded when something of it is looked up.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

_ACTIVATIONS = "transformers.activations"
_TABLE = "ACT2FN"


@contextlib.contextmanager
def activations_later() -> Iterator[None]:
    """Read configs in here. Nothing is kept from anybody: who looks something up gets it, and who imports the module afterwards
    imports it as ever."""
    if _ACTIVATIONS in sys.modules:
        yield
        return
    later = sys.modules[_ACTIVATIONS] = _Later(_ACTIVATIONS)
    try:
        yield
    finally:
        if sys.modules.get(_ACTIVATIONS) is later:
            del sys.modules[_ACTIVATIONS]


class _Later(ModuleType):
    """The module, until something of it is looked up."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        setattr(self, _TABLE, _Table())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # how the machinery of imports looks at any module
            raise AttributeError(name)
        return getattr(_loaded(), name)


class _Table(Mapping[str, Any]):
    """The table of activations, which may be named by who never looks at it."""

    def __getitem__(self, name: str) -> Any:
        return getattr(_loaded(), _TABLE)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(getattr(_loaded(), _TABLE))

    def __len__(self) -> int:
        return len(getattr(_loaded(), _TABLE))


def _loaded() -> ModuleType:
    if isinstance(sys.modules.get(_ACTIVATIONS), _Later):
        del sys.modules[_ACTIVATIONS]
    return importlib.import_module(_ACTIVATIONS)


__all__ = ["activations_later"]

"""transformers' configs and processors, without the half of transformers and torch that only its own models need.

Where torch is at hand, transformers checks names of activations by a table that stands beside the activations themselves, and its
processors know a class that stands beside its models: with them come torch's compiler, its distributed tensors, sympy and triton,
which take longer to import than torch does. So while a config or a processor is read, these two modules are ones which are loaded
when something of them is looked up.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def models_later() -> Iterator[None]:
    """Read configs and processors in here. Nothing is kept from anybody: who looks something up gets it, and who imports one of
    the modules afterwards imports it as ever."""
    later = [_Later(*named) for named in _NAMED if named[0] not in sys.modules]
    sys.modules.update({module.__name__: module for module in later})
    try:
        yield
    finally:
        for module in later:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


class _Later(ModuleType):
    """A module, until something of it is looked up.

    Args:
        name: Of the module.
        known: What others import of it by name without looking at it.
        form: Makes of `known` what stands for it.
    """

    def __init__(self, name: str, known: str, form: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(name)
        setattr(self, known, form(lambda: getattr(self._loaded(), known)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # how the machinery of imports looks at any module
            raise AttributeError(name)
        return getattr(self._loaded(), name)

    def _loaded(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


class _Table(Mapping[str, Any]):
    """Stands for a mapping."""

    def __init__(self, real: Callable[[], Mapping[str, Any]]) -> None:
        self._real = real

    def __getitem__(self, name: str) -> Any:
        return self._real()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._real())

    def __len__(self) -> int:
        return len(self._real())


class _Class:
    """Stands for a class: instances are told, and classes derived from it are derived from the real one."""

    def __init__(self, real: Callable[[], type]) -> None:
        self._real = real

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, derived: type) -> bool:
        return issubclass(derived, self._real())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (self._real(),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


_NAMED: tuple[tuple[str, str, Callable[[Callable[[], Any]], Any]], ...] = (
    ("transformers.activations", "ACT2FN", _Table),
    ("transformers.modeling_utils", "PreTrainedAudioTokenizerBase", _Class),
)

__all__ = ["models_later"]

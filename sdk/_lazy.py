"""Public names that resolve on first use (PEP 562), so that importing a package imports nothing heavy."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` for a package.

    Args:
        package: The package's `__name__`.
        names: Public name → module within the package, e.g. `{"Model": "interfaces"}`; a name that equals its module
            is that module.
    """

    def getattr_(name: str) -> Any:
        module = names.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with collector_paused():
            loaded = importlib.import_module(f"{package}.{module}")
        return loaded if module == name else getattr(loaded, name)

    return getattr_, lambda: sorted(names), sorted(names)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Do without Python's garbage collector while much is imported or made that stays: looking at all of it again and again
    takes a quarter of a start. Within another one it changes nothing."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # to the oldest generation, without being looked at
            gc.freeze()
            gc.unfreeze()
        gc.enable()

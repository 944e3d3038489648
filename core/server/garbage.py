"""Python's garbage collector, in processes that run long and begin with much."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Keep all that there is by now out of the garbage collector's sight. It stays anyway, and to look at all of it now and then
    would hold up whatever runs at that moment."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


__all__ = ["left_alone"]

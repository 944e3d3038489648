"""What the engine asks of its whole process: settings that nobody else can make for it, and memory given back."""

from __future__ import annotations

import ctypes
import os
import sys

TOLERATED = 64 * 2**20
"""Bytes freed while a model is loaded before the C library is asked to give them back to the system."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_process() -> None:
    """Make the C library and oneDNN keep what every step uses again. Safe to call more than once.

    - oneDNN compiles a product for each number of rows, and batches come in every size: let it keep them all. It reads the
      environment at its first use, so this runs before the first product.
    - glibc returns large blocks to the system as soon as they are freed, and the next step pays for every page of them again
      (an activation over 2,048 tokens took five times as long, see docs/performance.md).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
            mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)


class FreedMemory:
    """Has freed memory given back whenever it is much: blocks of other sizes find no room in what was freed."""

    def __init__(self) -> None:
        self._bytes = 0

    def count(self, freed: int) -> None:
        """So many bytes were freed."""
        self._bytes += freed
        if self._bytes > TOLERATED:
            self._bytes = 0
            return_free_memory()


def return_free_memory() -> None:
    """Have the C library give freed blocks back to the system, also those between blocks in use. For start-up, not for steps."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

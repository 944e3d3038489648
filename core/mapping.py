"""Memory straight from the system, which gives it as it is written and has it back as soon as nobody holds it."""

from __future__ import annotations

import contextlib
import mmap
import sys

import numpy as np
from numpy.typing import NDArray


def mapped(size: int, *, huge: bool) -> NDArray[np.uint8]:
    """So many bytes, zeroed, on Linux from an address that begins a page.

    Args:
        huge: In pages of 2 MiB: quicker to read from end to end and to come by. Else of 4 KiB: no more is taken than is
            written, and the system need not find memory that is whole. Where there is no such choice, as it comes.
    """
    if sys.platform != "linux":
        return np.zeros(size, dtype=np.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel that knows no huge pages
        memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)


__all__ = ["mapped"]

"""What the engine asks of its whole process: settings that nobody else can make for it, and memory given back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

KEPT_BLOCK = 32 * 2**20
"""Blocks of a step up to this size are kept when they are freed; glibc allows no more."""
KEPT_BYTES = 512 * 2**20
"""Of freed memory that are kept."""
LOADED_BLOCK = 128 * 2**10
"""Blocks of this size or more are kept by nobody while a model is loaded."""
RETURNED_BLOCK = 2**20
"""Blocks of this size or more are kept by nobody in a process that computes nothing: bodies, pictures, clips."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_process() -> None:
    """Make the C library and oneDNN keep what every step uses again. Safe to call more than once.

    - oneDNN compiles a product for each number of rows, and batches come in every size: let it keep them all. It reads the
      environment at its first use, so this runs before the first product.
    - glibc returns large blocks to the system as soon as they are freed, and the next step pays for every page of them again
      (an activation over 2,048 tokens took five times as long, see docs/performance.md).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")
    _set(_M_MMAP_THRESHOLD, KEPT_BLOCK)
    _set(_M_TRIM_THRESHOLD, KEPT_BYTES)


@contextlib.contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Have every weight lie in memory of its own, for loading: the form of it that packing frees goes back to the system at once,
    and leaves no hole among what stays, which would fill up with what steps compute and never be given back."""
    _set(_M_MMAP_THRESHOLD, LOADED_BLOCK)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, KEPT_BLOCK)


def return_large_blocks() -> None:
    """Have large blocks go back to the system as soon as they are freed, for a process without an engine. By itself glibc begins
    to keep them, for each of many threads apart, once it has seen some freed."""
    _set(_M_MMAP_THRESHOLD, RETURNED_BLOCK)


def _set(parameter: int, value: int) -> None:
    """Set a parameter of glibc's malloc, unless the user has said what blocks are to be kept."""
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(parameter, value)


def return_free_memory() -> None:
    """Have the C library give freed blocks back to the system, also those between blocks in use. For start-up, not for steps."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

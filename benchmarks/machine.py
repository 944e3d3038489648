"""What this machine can do right now: memory read bandwidth and bfloat16 matmul rate. Sampled beside every run, because shared
machines change speed."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

READ_BYTES = 512 * 2**20


def _best(function: Callable[[], object], repeat: int) -> float:
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _sum(words: NDArray[np.int64], parts: int) -> int:
    """Every word is read once, each part by a thread from end to end."""
    total, size = 0, len(words) // parts
    for part in numba.prange(parts):
        own = 0
        for word in words[part * size : (part + 1) * size]:
            own += word
        total += own
    return total


def _read_rate(repeat: int) -> float:
    """GB/s of plain reading, from memory in huge pages where the system has them."""
    memory = mmap.mmap(-1, READ_BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    words = np.frombuffer(memory, dtype=np.int64)
    words[:] = 1
    read: Any = numba.njit(parallel=True)(_sum)
    return READ_BYTES / _best(lambda: read(words, torch.get_num_threads()), repeat) / 1e9


def sample(repeat: int = 3) -> dict[str, float]:
    """`read_gb_s`: reading 512 MiB on all threads. `bf16_tflop_s`: a packed product of 512 rows."""
    read = _read_rate(2 * repeat)
    product = torch.ops.mkldnn._linear_pointwise.default
    with torch.inference_mode():
        weight = torch.randn(4096, 2048).bfloat16()
        packed, rows = torch.ops.mkldnn._reorder_linear_weight(weight, 512), torch.randn(512, 2048).bfloat16()
        flop = 2 * 512 * 4096 * 2048
        rate = flop / _best(lambda: product(rows, packed, None, "none", [], ""), repeat * 3) / 1e12
    return {"read_gb_s": round(read, 2), "bf16_tflop_s": round(rate, 3)}

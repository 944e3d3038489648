"""What this machine can do right now: memory read bandwidth and bfloat16 matmul rate. Sampled beside every run, because shared
machines change speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def _best(function: Callable[[], object], repeat: int) -> float:
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def sample(repeat: int = 3) -> dict[str, float]:
    """`read_gb_s`: a packed matrix-vector product over 512 MiB. `bf16_tflop_s`: a packed product of 512 rows."""
    product = torch.ops.mkldnn._linear_pointwise.default
    with torch.inference_mode():
        wide = torch.zeros(65536, 4096, dtype=torch.bfloat16)
        packed = torch.ops.mkldnn._reorder_linear_weight(wide, 1)
        row = torch.ones(1, 4096, dtype=torch.bfloat16)
        read = wide.nbytes / _best(lambda: product(row, packed, None, "none", [], ""), repeat) / 1e9
        del wide, packed
        weight = torch.randn(4096, 2048).bfloat16()
        packed, rows = torch.ops.mkldnn._reorder_linear_weight(weight, 512), torch.randn(512, 2048).bfloat16()
        flop = 2 * 512 * 4096 * 2048
        rate = flop / _best(lambda: product(rows, packed, None, "none", [], ""), repeat * 3) / 1e12
    return {"read_gb_s": round(read, 2), "bf16_tflop_s": round(rate, 3)}

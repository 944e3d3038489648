"""What the Triton kernels share: sizes of tiles, and functions that run in a kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)


def padded(size: int, least: int = 1) -> int:
    """The power of two that has room for `size`: tiles come in no other sizes."""
    return max(least, 1 << max(0, size - 1).bit_length())


def warps_for(elements: int) -> int:
    """How many warps share a tile of so many elements."""
    return max(1, min(8, elements // 512))


def processors(device: torch.device) -> int:
    """How many programs run at a time, at least."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def rows_of(x: Tensor) -> tuple[int, int, int] | None:
    """How the rows of `x` lie: how many lines there are side by side, and the strides of a group of lines and of a line.

    `(rows, n)` has one line in a group, `(tokens, heads, n)` as many as heads. None: in no such way.
    """
    if x.stride(-1) != 1:
        return None
    if x.ndim == 2:
        return 1, x.stride(0), 0
    if x.ndim == 3:
        return x.shape[1], x.stride(0), x.stride(1)
    return (1, x.shape[-1], 0) if x.is_contiguous() else None


@triton.jit
def tanh(x):
    """In a kernel: the hyperbolic tangent of float32, without a library."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def erf_gelu(x):
    """In a kernel: `x * Φ(x)` of float32."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def tanh_gelu(x):
    """In a kernel: the tanh form of `erf_gelu`."""
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))

"""Compiled kernels over rows: RMSNorm with its residual, gated activation, rotary with the write of K/V."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from .compiled import at, exp, kernel, load, store


@kernel
def rms_norm(x: int, x_stride: int, lines: int, residual: int, weight: int, out: int, total: int, rows: int, n: int,
             eps: float, offset: float, kind: Any) -> None:  # fmt: skip
    """`out = norm(x + residual)`, `total = x + residual`; without a residual (address 0) `total` is not written.

    `x` has `lines` rows side by side every `x_stride` elements; the others are contiguous.
    """
    xs, ws = at(x, kind), at(weight, kind)
    rs, ts, os = at(residual, kind), at(total, kind), at(out, kind)
    for row in prange(rows):
        line, start = np.empty(n, dtype=np.float32), row // lines * x_stride + row % lines * n
        if residual != 0:
            for i in range(n):
                value = load(xs, start + i) + load(rs, row * n + i)
                store(ts, row * n + i, value)
            for i in range(n):
                line[i] = load(ts, row * n + i)
        else:
            for i in range(n):
                line[i] = load(xs, start + i)
        squares = np.float32(0.0)
        for i in range(n):
            squares += line[i] * line[i]
        scale = np.float32(1.0) / np.sqrt(squares / np.float32(n) + np.float32(eps))
        for i in range(n):
            store(os, row * n + i, line[i] * scale * (load(ws, i) + np.float32(offset)))


@kernel
def silu_and_mul(gate: int, up: int, stride: int, out: int, rows: int, n: int, kind: Any) -> None:
    """`out = silu(gate) * up`; gate and up are rows of one wider buffer."""
    gs, us, os = at(gate, kind), at(up, kind), at(out, kind)
    for row in prange(rows):
        for i in range(n):
            g = load(gs, row * stride + i)
            store(os, row * n + i, g / (np.float32(1.0) + exp(-g)) * load(us, row * stride + i))


@numba.njit(inline="always")
def _turn(x: Any, a: int, c: Any, s: Any, r: int, half: int, dim: int, out: Any, b: int) -> None:
    for i in range(half):
        low, high = load(x, a + i), load(x, a + half + i)
        store(out, b + i, low * c[r + i] - high * s[r + i])
        store(out, b + half + i, high * c[r + i] + low * s[r + i])
    for i in range(2 * half, dim):
        out[b + i] = x[a + i]


@kernel
def rotary_and_write(q: int, q_stride: int, k: int, k_stride: int, v: int, v_stride: int, cos: int, sin: int, half: int,
                     q_out: int, k_out: int, keys: int, values: int, slots: Any, heads: int, kv_heads: int, dim: int,
                     float_kind: Any, kind: Any) -> None:  # fmt: skip
    """Rotate q and k by halves (none when `half` is 0), write k and v to their slots in the pool.

    `q_out` `(tokens, heads, dim)` and `k_out` `(tokens, kv_heads, dim)` get the rotated ones.
    """
    tokens = len(slots)
    width, kv_width = heads * dim, kv_heads * dim
    qs, ks, vs = at(q, kind), at(k, kind), at(v, kind)
    qo, ko = at(q_out, kind), at(k_out, kind)
    kp, vp = at(keys, kind), at(values, kind)
    c, s = at(cos, float_kind), at(sin, float_kind)
    for t in prange(tokens):
        for h in range(heads):
            _turn(qs, t * q_stride + h * dim, c, s, t * half, half, dim, qo, t * width + h * dim)
        for h in range(kv_heads):
            _turn(ks, t * k_stride + h * dim, c, s, t * half, half, dim, ko, t * kv_width + h * dim)
        slot = slots[t] * kv_width
        for i in range(kv_width):
            kp[slot + i] = ko[t * kv_width + i]
            vp[slot + i] = vs[t * v_stride + i]

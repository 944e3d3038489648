"""Compiled kernels over rows: RMSNorm with its residual, gated activation, rotary with the write of K/V."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from ._lanes import WIDTH, exp_lanes, load_lanes, splat, store_lanes
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
    size, whole, one = kind.itemsize, n // WIDTH * WIDTH, splat(np.float32(1.0))
    for row in prange(rows):
        for i in range(0, whole, WIDTH):
            g = load_lanes(gate + size * (row * stride + i), kind)
            u = load_lanes(up + size * (row * stride + i), kind)
            store_lanes(out + size * (row * n + i), g / (one + exp_lanes(splat(np.float32(0.0)) - g)) * u, kind)
        for i in range(whole, n):
            x = load(gs, row * stride + i)
            store(os, row * n + i, x / (np.float32(1.0) + exp(-x)) * load(us, row * stride + i))


@numba.njit(error_model="numpy")
def _turn(x: int, cos: int, sin: int, half: int, dim: int, out: int, float_kind: Any, kind: Any) -> None:
    """One head at an address: its first `2 * half` elements rotated by halves, the others as they are."""
    size, whole = kind.itemsize, half // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        low, high = load_lanes(x + size * i, kind), load_lanes(x + size * (half + i), kind)
        c, s = load_lanes(cos + 4 * i, float_kind), load_lanes(sin + 4 * i, float_kind)
        store_lanes(out + size * i, low * c - high * s, kind)
        store_lanes(out + size * (half + i), high * c + low * s, kind)
    source, made, cs, ss = at(x, kind), at(out, kind), at(cos, float_kind), at(sin, float_kind)
    for i in range(whole, half):
        x_low, x_high = load(source, i), load(source, half + i)
        store(made, i, x_low * cs[i] - x_high * ss[i])
        store(made, half + i, x_high * cs[i] + x_low * ss[i])
    for i in range(2 * half, dim):
        made[i] = source[i]


@kernel
def rotary_and_write(q: int, q_stride: int, k: int, k_stride: int, v: int, v_stride: int, cos: int, sin: int, half: int,
                     q_out: int, keys: int, values: int, slots: Any, heads: int, kv_heads: int, dim: int,
                     float_kind: Any, kind: Any) -> None:  # fmt: skip
    """Rotate q and k by halves (none when `half` is 0), write k and v to their slots in the pool, q to `q_out`
    `(tokens, heads, dim)`."""
    tokens = len(slots)
    width, kv_width, size = heads * dim, kv_heads * dim, kind.itemsize
    vp, vs = at(values, kind), at(v, kind)
    for t in prange(tokens):
        c, s = cos + 4 * t * half, sin + 4 * t * half
        for h in range(heads):
            _turn(
                q + size * (t * q_stride + h * dim),
                c,
                s,
                half,
                dim,
                q_out + size * (t * width + h * dim),
                float_kind,
                kind,
            )
        slot = slots[t] * kv_width
        for h in range(kv_heads):
            _turn(
                k + size * (t * k_stride + h * dim), c, s, half, dim, keys + size * (slot + h * dim), float_kind, kind
            )
        for i in range(kv_width):
            vp[slot + i] = vs[t * v_stride + i]

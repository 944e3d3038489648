"""Scans over states, compiled: sixteen numbers of a state side by side, each read and written once a token."""

from __future__ import annotations

import numpy as np
from numba import prange

from ._lanes import WIDTH, exp_lanes, load_lanes, multiply_add, splat, store_lanes, sum_lanes
from .compiled import REAL, at, exp, kernel


@kernel
def selective_scan(
    x: int, dt: int, a: int, b: int, c: int, state: int, out: int, sequences: int, n: int, channels: int, size: int
) -> None:
    """`state = exp(dt a) state + dt b x`, `out = c state`, token by token; all contiguous, all float32, `state` in place."""
    blocks = channels // WIDTH
    bs, cs = at(b, REAL), at(c, REAL)
    for job in prange(sequences * blocks):
        sequence, first = job // blocks, job % blocks * WIDTH
        for t in range(n):
            row = sequence * n + t
            place = 4 * (row * channels + first)
            step = load_lanes(dt + place, REAL)
            added, made = step * load_lanes(x + place, REAL), splat(np.float32(0.0))
            for k in range(size):
                kept = state + 4 * ((sequence * size + k) * channels + first)
                decay = exp_lanes(step * load_lanes(a + 4 * (k * channels + first), REAL))
                h = multiply_add(decay, load_lanes(kept, REAL), added * splat(bs[row * size + k]))
                store_lanes(kept, h, REAL)
                made = multiply_add(h, splat(cs[row * size + k]), made)
            store_lanes(out + place, made, REAL)


@kernel
def dual_token(x: int, dt: int, a: int, b: int, c: int, state: int, out: int, sequences: int, heads: int, head_dim: int,
               size: int, groups: int) -> None:  # fmt: skip
    """`state = exp(dt a) state + dt x bᵀ`, `out = state c`, for one token of each sequence and the matrix of each head; all
    contiguous, all float32, `state` in place."""
    xs, dts, decays, outs = at(x, REAL), at(dt, REAL), at(a, REAL), at(out, REAL)
    for job in prange(sequences * heads):
        head = job % heads
        shared = 4 * size * (job // heads * groups + head * groups // heads)
        decay = splat(exp(dts[job] * decays[head]))
        for row in range(job * head_dim, (job + 1) * head_dim):
            added, made = splat(dts[job] * xs[row]), splat(np.float32(0.0))
            for i in range(0, 4 * size, 4 * WIDTH):
                kept = state + 4 * row * size + i
                h = multiply_add(decay, load_lanes(kept, REAL), added * load_lanes(b + shared + i, REAL))
                store_lanes(kept, h, REAL)
                made = multiply_add(h, load_lanes(c + shared + i, REAL), made)
            outs[row] = sum_lanes(made)

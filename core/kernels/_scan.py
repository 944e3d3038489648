"""The selective scan, compiled: sixteen channels side by side, whose states stay in the nearest cache."""

from __future__ import annotations

import numpy as np
from numba import prange

from ._lanes import WIDTH, exp_lanes, load_lanes, multiply_add, splat, store_lanes
from .compiled import REAL, at, kernel


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

"""The online softmax over a tile of scores, a row for each query (Milakov & Gimelshein 2018)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

from ._lanes import (
    WIDTH,
    between,
    counted,
    exp_lanes,
    larger,
    load_lanes,
    max_lanes,
    multiply_add,
    power_lanes,
    power_lanes_coarse,
    splat,
    store_lanes,
)
from ._pack import TILE
from .compiled import REAL, at

LOG2_E = np.float32(1.4426950408889634)
NOTHING = np.float32(-1e30)
"""The largest score before any was seen: finite, so that a difference of two is a number."""


@numba.njit(error_model="numpy")
def shape_scores(
    scores: int, first: int, low: int, high: int, position: int, scale: float, cap: float, slope: float
) -> None:
    """What a row of scores goes through before the softmax: scale, soft cap, slope, and -inf for keys that are not seen."""
    for i in range(0, TILE, WIDTH):
        s = load_lanes(scores + 4 * i, REAL) * splat(scale)
        if cap > 0:
            twice = exp_lanes(s * splat(np.float32(2.0) / cap))
            s = splat(cap) - splat(np.float32(2.0) * cap) / (twice + splat(np.float32(1.0)))
        if slope != 0:
            s = s + splat(slope) * (counted() + splat(np.float32(first + i - position)))
        index = counted() + splat(np.float32(first + i))
        s = between(index, splat(np.float32(low)), splat(np.float32(high)), s, splat(np.float32(-np.inf)))
        store_lanes(scores + 4 * i, s, REAL)


def power_of(x: Any, form: Any) -> Any:
    """In a kernel: 2 to the x, as precise as `form` keeps it."""


@overload(power_of, strict=False)
def _power_of_form(x: Any, form: Any) -> Any:
    if form.dtype == numba.types.uint16:
        return lambda x, form: power_lanes_coarse(x)
    return lambda x, form: power_lanes(x)


@numba.njit(error_model="numpy")
def weigh(rows: int, scores: int, best: int, weight: int, shrink: int, factors: int, weights: int, form: Any) -> None:
    """Turn rows of scores into weights relative to the largest score so far; what was summed before shrinks by as much.

    `factors` are by what the scores become logarithms to the base 2, as which `best` is kept.
    """
    bytes_each = form.itemsize
    before, tops, by = at(best, REAL), at(shrink + 4 * WIDTH, REAL), at(factors, REAL)
    for r in range(rows):
        line = scores + 4 * TILE * r
        top = load_lanes(line, REAL)
        for i in range(WIDTH, TILE, WIDTH):
            top = larger(load_lanes(line + 4 * i, REAL), top)
        tops[r] = max(before[r], max_lanes(top) * by[r])
    store_lanes(shrink, power_lanes(load_lanes(best, REAL) - load_lanes(shrink + 4 * WIDTH, REAL)), REAL)
    shrinks = at(shrink, REAL)
    for r in range(rows):
        before[r] = tops[r]
        line, place = scores + 4 * TILE * r, weight + 4 * WIDTH * r
        top, factor = splat(-tops[r]), splat(by[r])
        total = load_lanes(place, REAL) * splat(shrinks[r])
        for i in range(0, TILE, WIDTH):
            w = power_of(multiply_add(load_lanes(line + 4 * i, REAL), factor, top), form)
            total = total + w
            store_lanes(weights + bytes_each * (TILE * r + i), w, form)
        store_lanes(place, total, REAL)

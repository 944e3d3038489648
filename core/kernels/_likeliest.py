"""The likeliest token of each row of logits, by one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from ._lanes import WIDTH, larger, load_lanes, max_lanes, multiply_add, splat, sum_lanes
from .compiled import at, exact_kernel, load

BLOCK = 64 * WIDTH
"""Logits of which only the largest is told; in the block that has the row's largest its place is looked for."""
LEAST = np.float32(-np.inf)
SMALLEST = np.float32(-3e38)


@njit(error_model="numpy")
def _look(found: Any, top: Any, spoilt: Any) -> tuple[Any, Any]:
    """The largest of each lane so far, and a sum that becomes NaN where one is NaN or infinite; -inf, by which a token is
    forbidden, does neither."""
    return larger(found, top), multiply_add(larger(splat(SMALLEST), found), splat(np.float32(0.0)), spoilt)


@exact_kernel
def likeliest_tokens(logits: int, stride: int, rows: int, vocab: int, tokens: Any, finite: Any, kind: Any) -> None:
    """`tokens[row]`: the lowest index of the row's largest logit; `finite[row]`: whether that is a finite number and no logit of
    the row is NaN. Rows are `stride` elements apart."""
    size = kind.itemsize
    for row in prange(rows):
        line = logits + size * row * stride
        values, best, block = at(line, kind), LEAST, 0
        spoilt = splat(np.float32(0.0))
        for first in range(0, vocab, BLOCK):
            end = min(vocab, first + BLOCK)
            whole = first + (end - first) // WIDTH * WIDTH
            top = splat(LEAST)
            for i in range(first, whole, WIDTH):
                top, spoilt = _look(load_lanes(line + size * i, kind), top, spoilt)
            for i in range(whole, end):
                top, spoilt = _look(splat(load(values, i)), top, spoilt)
            most = max_lanes(top)
            if most > best:
                best, block = most, first
        place = block
        while place + 1 < vocab and load(values, place) != best:
            place += 1
        tokens[row] = place
        finite[row] = 1 if best > LEAST and sum_lanes(spoilt) == 0 else 0

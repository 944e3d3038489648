"""Rows of a table that is packed as the weight of a product."""

from __future__ import annotations

import numpy as np
from numba import prange

from ._product import BLOCK
from .compiled import WHOLE, WORD, at, exact_kernel

NO_NUMBERS = np.uint32(0x7FC07FC0)
"""Two NaN of bfloat16."""


@exact_kernel
def packed_rows(ids: int, count: int, weight: int, rows: int, inputs: int, out: int) -> None:
    """`out = weight[ids]` for int64 ids and a packed bfloat16 weight of so many rows; NaN where there is no such row."""
    pairs = inputs // 2
    for i in prange(count):
        row, made = at(ids, WHOLE)[i], at(out + 2 * i * inputs, WORD)
        if 0 <= row < rows:
            source = at(weight + 2 * (row // BLOCK * BLOCK * inputs) + 4 * (row % BLOCK), WORD)
            for pair in range(pairs):
                made[pair] = source[pair * BLOCK]
        else:
            for pair in range(pairs):
                made[pair] = NO_NUMBERS

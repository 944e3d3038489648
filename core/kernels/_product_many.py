"""Products of many rows with a weight that oneDNN packed: bound by arithmetic, so what matters is that operands are near.

Some rows stay in the second level of caches while a part of the weight passes: a tile's rows are in the first, and the 64 outputs
that they are multiplied with, in the second, serve all rows before the next 64 are needed.
"""

from __future__ import annotations

from typing import Any

from numba import prange

from ._product import BLOCK
from ._tile import COLUMNS, ROWS, take_number, tile_rounded
from .compiled import WHOLE, at, exact_kernel

PARTS = 4
"""Of a weight: with some rows each is a job, so that threads end together."""
_tile = tile_rounded(ROWS, COLUMNS)


@exact_kernel
def packed_product_many(x: int, stride: int, rows: int, weight: int, bias: int, bias_step: int, out: int, inputs: int,
                        outputs: int, near: int, counter: int, workers: int, kind: Any) -> None:  # fmt: skip
    """`out = x @ weight.T + bias` for `ROWS` rows of bfloat16 or more, `stride` elements apart.

    Args (addresses, numbers): `bias`: has numbers up to the end of the last block, `bias_step` bytes from one output's to the
    next; 0: the first block's serve all. `near`: rows of a job, a multiple of `ROWS`; `counter`: 8 bytes to work with.
    """
    at(counter, WHOLE)[0] = 0
    size, blocks = inputs * BLOCK * 2, (outputs + BLOCK - 1) // BLOCK
    parts, groups = min(PARTS, blocks), (rows + near - 1) // near
    for _ in prange(workers):
        while True:
            number = take_number(counter)
            if number >= groups * parts:
                break
            part, first = number // groups, number % groups * near
            end = min(rows, first + near)
            share = 256 * ROWS // (end - first)  # bytes of the next block that each step of a tile asks for
            for block in range(blocks * part // parts, blocks * (part + 1) // parts):
                start, place = block * BLOCK, weight + block * size
                ask = place + size
                for strip in range(first, end, ROWS):
                    row = min(strip, rows - ROWS)  # the last rows are computed twice rather than by a smaller tile
                    _tile(x + 2 * row * stride, 2 * stride, place, 4 * BLOCK, out + 2 * (row * outputs + start), 2 * outputs,
                          outputs - start, inputs // 2, bias + start * bias_step, ask, share, kind)  # fmt: skip
                    ask += share * (inputs // 2)

"""Products of rows with a weight that oneDNN packed. Few rows are bound by how fast the weight is read, many by arithmetic."""

from __future__ import annotations

from typing import Any

from numba import njit, prange

from ._lanes import WIDTH, load_lanes, store_lanes
from ._tile import COLUMNS, ROWS, stack_room, tile_product
from .compiled import REAL, at, exact_kernel, load, store

BLOCK = 64
"""Outputs that a packed weight holds side by side: `(output / 64, input / 2, 64, 2)`, the last block filled up with zeros."""
_AHEAD = 4096
_few = [tile_product(rows, COLUMNS, accumulate=False, asks=COLUMNS) for rows in range(1, ROWS + 1)]
_few_1, _few_2, _few_3, _few_4, _few_5, _few_6 = _few
_once = tile_product(1, COLUMNS, accumulate=False, asks=COLUMNS, level=0)
_many = tile_product(ROWS, COLUMNS, accumulate=False, asks=1, level=2)
_sums = stack_room(ROWS * BLOCK * 4)


@njit(error_model="numpy")
def _strip(
    rows: int, x: int, stride: int, weight: int, made: int, depth: int, ask: int, ask_stride: int, kind: Any
) -> None:
    """Some rows with 16 × `COLUMNS` outputs."""
    wide = 4 * BLOCK
    if rows == 6:
        _few_6(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)
    elif rows == 5:
        _few_5(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)
    elif rows == 4:
        _few_4(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)
    elif rows == 3:
        _few_3(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)
    elif rows == 2:
        _few_2(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)
    else:
        _few_1(x, stride, weight, wide, made, wide, depth, 0, ask, ask_stride, kind)


@njit(error_model="numpy")
def _put(sums: int, bias: int, out: int, count: int, kind: Any) -> None:
    """Write so many sums of one row, from an address of float32 to one of `kind`."""
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        result = load_lanes(sums + 4 * i, REAL)
        if bias != 0:
            result = result + load_lanes(bias + 2 * i, kind)
        store_lanes(out + 2 * i, result, kind)
    for i in range(whole, count):
        value = at(sums, REAL)[i]
        if bias != 0:
            value += load(at(bias, kind), i)
        store(at(out, kind), i, value)


@exact_kernel
def packed_product(x: int, stride: int, rows: int, weight: int, bias: int, out: int, inputs: int, outputs: int,
                   kind: Any) -> None:  # fmt: skip
    """`out = x @ weight.T + bias` for rows of bfloat16, `stride` elements apart; without a bias its address is 0."""
    size = inputs * BLOCK * 2
    strips = (rows + ROWS - 1) // ROWS
    share = 256 // strips
    for block in prange((outputs + BLOCK - 1) // BLOCK):
        sums = _sums()
        for strip in range(strips):
            first = strip * ROWS
            some = min(ROWS, rows - first)
            for column in range(0, BLOCK, COLUMNS * WIDTH):
                place, made, source = weight + block * size + 4 * column, sums + 4 * column, x + 2 * first * stride
                if strips == 1:
                    _strip(some, source, 2 * stride, place, made, inputs // 2, place + _AHEAD, 256, kind)
                elif some == ROWS:  # each asks for its share of the next block
                    ask = place + size + strip * share * (inputs // 2)
                    _many(source, 2 * stride, place, 4 * BLOCK, made, 4 * BLOCK, inputs // 2, 0, ask, share, kind)
                else:
                    _strip(some, source, 2 * stride, place, made, inputs // 2, place, 0, kind)
            start = block * BLOCK
            for row in range(some):
                _put(sums + 4 * row * BLOCK, bias + 2 * start if bias != 0 else 0,
                     out + 2 * ((first + row) * outputs + start), min(BLOCK, outputs - start), kind)  # fmt: skip


@exact_kernel
def packed_row(x: int, weight: int, bias: int, out: int, inputs: int, outputs: int, workers: int, kind: Any) -> None:
    """The same for one row, which is bound by how fast the weight is read: each worker reads its part from end to end, and asks
    for it in such a way that what the caches hold of everything else stays there."""
    size, blocks = inputs * BLOCK * 2, (outputs + BLOCK - 1) // BLOCK
    for worker in prange(workers):
        sums = _sums()
        for block in range(blocks * worker // workers, blocks * (worker + 1) // workers):
            for column in range(0, BLOCK, COLUMNS * WIDTH):
                place = weight + block * size + 4 * column
                _once(x, 0, place, 4 * BLOCK, sums + 4 * column, 0, inputs // 2, 0, place + _AHEAD, 4 * BLOCK, kind)
            start = block * BLOCK
            _put(sums, bias + 2 * start if bias != 0 else 0, out + 2 * start, min(BLOCK, outputs - start), kind)

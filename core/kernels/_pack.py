"""Tiles of keys and values, found in their pages and reordered for `_tile.tile_product`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

from ._lanes import WIDTH, load_lanes, splat, store_lanes
from ._tile import interleave_16, interleave_32, turn_square
from .compiled import REAL, WHOLE, WORD, at, load, store

TILE = 64
"""Keys of a tile."""


@numba.njit(error_model="numpy")
def find(pages: Any, sequence: int, first: int, held: int, page_size: int, page_stride: int, row_stride: int, keys: int,
         values: int, k_lines: int, v_lines: int) -> None:  # fmt: skip
    """Write the addresses of a tile's keys and values, of which there are `held`; strides in bytes. The last is repeated, because
    what is computed beyond must be a number."""
    k_places, v_places = at(k_lines, WHOLE), at(v_lines, WHOLE)
    page, offset = first // page_size, first % page_size
    start = pages[sequence, page] * page_stride + offset * row_stride
    for t in range(held):
        k_places[t], v_places[t] = keys + start, values + start
        start, offset = start + row_stride, offset + 1
        if offset == page_size and t + 1 < held:
            page, offset = page + 1, 0
            start = pages[sequence, page] * page_stride
    for t in range(held, TILE):
        k_places[t], v_places[t] = k_places[held - 1], v_places[held - 1]


def copy(out: Any, i: int, source: Any, j: int, count: int) -> None:
    """In a kernel: copy elements, converting where the kinds differ."""


@overload(copy, strict=False)
def _copy(out: Any, i: Any, source: Any, j: Any, count: Any) -> Any:
    if out.dtype == source.dtype:

        def same(out: Any, i: int, source: Any, j: int, count: int) -> None:
            for n in range(count):
                out[i + n] = source[j + n]

        return same

    def converted(out: Any, i: int, source: Any, j: int, count: int) -> None:
        for n in range(count):
            store(out, i + n, load(source, j + n))

    return converted


@numba.njit(error_model="numpy")
def bring(lines: int, held: int, size: int, sums: int) -> None:
    """Read `size` bytes at each of `held` addresses, one row after the other, before they are needed out of order: a core brings
    by itself what follows in a stream, and waits for what does not. `sums`: 64 bytes that nobody reads."""
    places, total = at(lines, WHOLE), splat(np.float32(0.0))
    for t in range(held):
        for i in range(0, size - 63, 64):
            total = total + load_lanes(places[t] + i, REAL)
    store_lanes(sums, total, REAL)


@numba.njit(error_model="numpy")
def widen(lines: int, skip: int, out: int, dim: int, made_lines: int, kind: Any, form: Any) -> None:
    """Convert the rows of a tile, `skip` bytes after 64 addresses, and write the addresses of the converted ones."""
    places, made = at(lines, WHOLE), at(made_lines, WHOLE)
    for t in range(TILE):
        copy(at(out, form), t * dim, at(places[t] + skip, kind), 0, dim)
        made[t] = out + t * dim * form.itemsize


def pack_keys(lines: int, skip: int, out: int, dim: int, held: int, form: Any) -> None:
    """In a kernel: the keys of a tile, `skip` bytes after its addresses, as `(words of a key, key)`; where there is no key,
    after the `held`, it may hold anything."""


@overload(pack_keys, strict=False)
def _pack_keys(lines: Any, skip: Any, out: Any, dim: Any, held: Any, form: Any) -> Any:
    per_word = 2 if form.dtype == numba.types.uint16 else 1

    def packed(lines: int, skip: int, out: int, dim: int, held: int, form: Any) -> None:
        count = dim // per_word
        whole = count // WIDTH * WIDTH
        for key in range(0, held, WIDTH):
            for word in range(0, whole, WIDTH):
                turn_square(lines + 8 * key, skip + 4 * word, out + 4 * (word * TILE + key), 4 * TILE)
        if whole < count:
            made, places = at(out, WORD), at(lines, WHOLE)
            for key in range(held):
                line = at(places[key] + skip, WORD)
                for word in range(whole, count):
                    made[word * TILE + key] = line[word]

    return packed


def pack_values(lines: int, skip: int, out: int, dim: int, width: int, count: int, form: Any) -> None:
    """In a kernel: a tile's values, `skip` bytes after 64 addresses, as `(keys of a word, width)`: pairs of bfloat16 by turns."""


@overload(pack_values, strict=False)
def _pack_values(lines: Any, skip: Any, out: Any, dim: Any, width: Any, count: Any, form: Any) -> Any:
    if form.dtype != numba.types.uint16:

        def rows(lines: int, skip: int, out: int, dim: int, width: int, count: int, form: Any) -> None:
            made, places = at(out, form), at(lines, WHOLE)
            for key in range(count):
                copy(made, key * width, at(places[key] + skip, form), 0, dim)

        return rows

    def pairs(lines: int, skip: int, out: int, dim: int, width: int, count: int, form: Any) -> None:
        made, places = at(out, form), at(lines, WHOLE)
        for key in range(0, count, 2):
            a, b, line = places[key] + skip, places[key + 1] + skip, out + key * 2 * width
            i = 0
            while i + 32 <= dim:
                interleave_32(a + 2 * i, b + 2 * i, line + 4 * i)
                i += 32
            while i + 16 <= dim:
                interleave_16(a + 2 * i, b + 2 * i, line + 4 * i)
                i += 16
            x, y = at(a, form), at(b, form)
            while i < dim:
                made[key * width + 2 * i], made[key * width + 2 * i + 1] = x[i], y[i]
                i += 1

    return pairs

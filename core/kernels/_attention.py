"""Compiled attention over keys and values in pages: whole prompts, chunks of prompts and decoded tokens by one kernel.

Scores of a tile of keys are never written to memory (FlashAttention, Dao et al. 2022), and all heads and queries of a block that
read a tile use it once it was brought. Tiles begin at multiples of their size, and spans of tiles at multiples of theirs: sums
begin anew with each span and are joined in the order of the spans, whether one thread computes them all or several share them
(Flash-Decoding, Dao et al. 2023). So a query's result depends neither on what else is computed nor on who computes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange

from ._lanes import WIDTH, load_lanes, multiply_add, power_lanes, splat, store_lanes, sum_lanes
from ._pack import TILE, bring, copy, find, pack_keys, pack_values, widen
from ._softmax import LOG2_E, NOTHING, shape_scores, weigh
from ._tile import COLUMNS, ROWS, take_number, tile_product
from .compiled import REAL, WHOLE, at, exact_kernel, store

SPAN = 4 * TILE
"""Keys after which sums begin anew."""

_inner = numba.njit(error_model="numpy")
_scores_many = tile_product(ROWS, COLUMNS, accumulate=False, asks=4, level=2)
_scores_two = tile_product(2, COLUMNS, accumulate=False, asks=4, level=2)
_scores_one = tile_product(1, COLUMNS, accumulate=False, asks=4, level=2)
_add_many, _add_many_thin = (
    tile_product(ROWS, COLUMNS, accumulate=True, asks=4, level=2),
    tile_product(ROWS, 1, accumulate=True),
)
_add_two, _add_two_thin = (
    tile_product(2, COLUMNS, accumulate=True, asks=4, level=2),
    tile_product(2, 1, accumulate=True),
)
_add_one, _add_one_thin = (
    tile_product(1, COLUMNS, accumulate=True, asks=4, level=2),
    tile_product(1, 1, accumulate=True),
)


class Shape(NamedTuple):
    """What a layer asks for. `window`, `cap` 0: none; `slopes`, `sinks`: addresses of `(heads,)` float32, or 0."""

    heads: int
    kv_heads: int
    dim: int
    scale: float
    cap: float
    window: int
    causal: bool
    slopes: int
    sinks: int


class Job(NamedTuple):
    """Some queries of a sequence and some of its heads.

    `position` is the first query's, `last` the number of keys that the last query sees; `rows`: queries × heads.
    """

    sequence: int
    first_row: int
    position: int
    count: int
    last: int
    first_head: int
    some_heads: int
    rows: int


class Sums(NamedTuple):
    """What the softmax of a job's rows has come to: addresses of `(rows, dim, filled up to 16)` weighted values, `(rows, 16)`
    weights, and `(rows,)` largest scores, `NOTHING` before any key was seen."""

    totals: int
    weights: int
    best: int


class Room(NamedTuple):
    """Where a worker keeps what it works on: addresses."""

    queries: int
    key_tile: int
    value_tile: int
    scores: int
    shares: int
    lines: int
    wide_lines: int
    wide: int
    shrink: int
    factors: int


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


padded_inner = _inner(padded)


def sums_at(start: int, block: int, dim: int) -> tuple[Sums, int]:
    """Sums of at most `block` rows, and where they end."""
    weights = start + block * padded_inner(dim, WIDTH) * 4
    best = weights + block * WIDTH * 4
    # The largest scores are read 16 at a time from the first of up to six.
    return Sums(start, weights, best), best + padded_inner(block, WIDTH) * 4 + WIDTH * 4


_sums_at = _inner(sums_at)


def room_at(start: int, block: int, dim: int, element: int, wide: int) -> tuple[Room, Sums, Sums, int]:
    """A worker's room, its sums of the present span and of those before, and where it all ends.

    `block`: most rows (queries × heads) of a job, `wide`: whether tiles are converted.
    """
    row, width = padded_inner(dim * element, 64), padded_inner(dim, WIDTH)
    present, earlier_at = _sums_at(start + block * row, block, dim)
    earlier, key_tile = _sums_at(earlier_at, block, dim)
    value_tile = key_tile + padded_inner(dim * element, 4) * TILE
    scores = value_tile + width * element * TILE
    shares = scores + ROWS * TILE * 4
    lines = shares + ROWS * TILE * element
    wide_lines = lines + 4 * TILE * 8
    shrink = wide_lines + 2 * TILE * 8
    factors = shrink + 2 * WIDTH * 4
    wide_at = factors + WIDTH * 4
    end = padded_inner(wide_at + wide * 2 * TILE * dim * 4, 64)
    room = Room(start, key_tile, value_tile, scores, shares, lines, wide_lines, wide_at, shrink, factors)
    return room, present, earlier, end


def part_size(block: int, dim: int) -> int:
    """Bytes of what is kept of a part of a divided job: how many parts are done, in the first part's, and the sums."""
    _, end = _sums_at(64, block, dim)
    return padded_inner(end, 64)


_room_at, _part_size = _inner(room_at), _inner(part_size)


@_inner
def _key_scores(rows: int, a: int, a_stride: int, b: int, c: int, depth: int, ask: int, step: int,
                form: Any) -> None:  # fmt: skip
    """Scores of some rows with the keys of a tile."""
    for column in range(0, TILE, COLUMNS * WIDTH):
        if rows == ROWS:
            _scores_many(a, a_stride, b + 4 * column, 4 * TILE, c + 4 * column, 4 * TILE, depth, 0, ask, step, form)
        elif rows == 2:
            _scores_two(a, a_stride, b + 4 * column, 4 * TILE, c + 4 * column, 4 * TILE, depth, 0, ask, step, form)
        else:
            _scores_one(a, a_stride, b + 4 * column, 4 * TILE, c + 4 * column, 4 * TILE, depth, 0, ask, step, form)


@_inner
def _add_values(rows: int, a: int, a_stride: int, b: int, c: int, width: int, depth: int, shrink: int,
                ask: int, step: int, form: Any) -> None:  # fmt: skip
    """Add the weighted values of a tile to some rows; `width` is a multiple of 16."""
    column = 0
    while column + COLUMNS * WIDTH <= width:
        if rows == ROWS:
            _add_many(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, ask, step, form)
        elif rows == 2:
            _add_two(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, ask, step, form)
        else:
            _add_one(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, ask, step, form)
        column += COLUMNS * WIDTH
    while column < width:
        if rows == ROWS:
            _add_many_thin(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, 0, 0, form)
        elif rows == 2:
            _add_two_thin(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, 0, 0, form)
        else:
            _add_one_thin(a, a_stride, b + 4 * column, 4 * width, c + 4 * column, 4 * width, depth, shrink, 0, 0, form)
        column += WIDTH


@_inner
def _bring_queries(job: Job, shape: Shape, room: Room, q: int, q_stride: int, kind: Any, form: Any) -> None:
    """Copy a job's queries side by side, those of a head together."""
    group, row = shape.heads // shape.kv_heads, padded_inner(shape.dim * form.itemsize, 64)
    rows = job.count * group
    for r in range(job.rows):
        token, head = job.first_row + r % rows // group, (job.first_head + r // rows) * group + r % group
        copy(at(room.queries + r * row, form), 0, at(q, kind), token * q_stride + head * shape.dim, shape.dim)


@_inner
def _clear(sums: Sums, rows: int, width: int) -> None:
    """Begin sums."""
    zero, best = splat(np.float32(0.0)), at(sums.best, REAL)
    for r in range(rows):
        best[r] = NOTHING
        store_lanes(sums.weights + 4 * WIDTH * r, zero, REAL)
        for i in range(0, width, WIDTH):
            store_lanes(sums.totals + 4 * (r * width + i), zero, REAL)


@_inner
def _join(sums: Sums, more: Sums, rows: int, width: int) -> None:
    """Add what a later span came to. A row that saw nothing of it stays as it is, to the last bit."""
    best, theirs = at(sums.best, REAL), at(more.best, REAL)
    for r in range(rows):
        if theirs[r] == NOTHING:
            continue
        first = best[r] == NOTHING
        top = theirs[r] if first else max(best[r], theirs[r])
        shrink, share = power_lanes(splat(best[r] - top)), power_lanes(splat(theirs[r] - top))
        if first:
            shrink, share = splat(np.float32(0.0)), splat(np.float32(1.0))
        best[r] = top
        place = 4 * WIDTH * r
        ours, added = load_lanes(sums.weights + place, REAL), load_lanes(more.weights + place, REAL)
        store_lanes(sums.weights + place, multiply_add(ours, shrink, added * share), REAL)
        for i in range(0, width, WIDTH):
            place = 4 * (r * width + i)
            ours, added = load_lanes(sums.totals + place, REAL), load_lanes(more.totals + place, REAL)
            store_lanes(sums.totals + place, multiply_add(ours, shrink, added * share), REAL)


@_inner
def _end(job: Job, shape: Shape, sums: Sums, out: int, kind: Any) -> None:
    """Write a job's results."""
    group, dim = shape.heads // shape.kv_heads, shape.dim
    rows, width, whole = job.count * group, padded_inner(dim, WIDTH), dim // WIDTH * WIDTH
    best = at(sums.best, REAL)
    for r in range(job.rows):
        token, head = job.first_row + r % rows // group, (job.first_head + r // rows) * group + r % group
        place, line = (token * shape.heads + head) * dim, sums.totals + 4 * r * width
        weight, shrink = sum_lanes(load_lanes(sums.weights + 4 * WIDTH * r, REAL)), np.float32(1.0)
        if shape.sinks != 0:  # a key without a value
            sink = at(shape.sinks, REAL)[head] * LOG2_E
            top = max(best[r], sink)
            shrink = np.float32(2.0) ** (best[r] - top)
            weight = weight * shrink + np.float32(2.0) ** (sink - top)
        share = shrink / weight
        for i in range(0, whole, WIDTH):
            store_lanes(out + kind.itemsize * (place + i), load_lanes(line + 4 * i, REAL) * splat(share), kind)
        for i in range(whole, dim):
            store(at(out, kind), place + i, at(line, REAL)[i] * share)


@_inner
def _tile_of_head(job: Job, shape: Shape, room: Room, sums: Sums, tile: int, h: int, k_lines: int, v_lines: int,
                  k_ask: int, v_ask: int, ask_bytes: int, kind: Any, form: Any) -> None:  # fmt: skip
    """All queries of a job over one tile of the keys and values of its head `h`; on the way, so many bytes of the next tile are
    asked for from `k_ask` and `v_ask`."""
    dim, element = shape.dim, form.itemsize
    group, per_word = shape.heads // shape.kv_heads, 4 // element
    row, width, rows = padded_inner(dim * element, 64), padded_inner(dim, WIDTH), job.count * group
    held, skip = min(TILE, job.last - tile), h * dim * kind.itemsize
    if element != kind.itemsize:
        widen(k_lines, skip, room.wide, dim, room.wide_lines, kind, form)
        widen(v_lines, skip, room.wide + TILE * dim * element, dim, room.wide_lines + TILE * 8, kind, form)
        k_lines, v_lines, skip = room.wide_lines, room.wide_lines + TILE * 8, 0
    pack_keys(k_lines, skip, room.key_tile, dim, held, form)
    pack_values(v_lines, skip, room.value_tile, dim, width, held, form)
    # Queries before the tile do not see it, nor do those whose window has left it.
    begin = max(0, tile - job.position) * group if shape.causal else 0
    end = min(rows, (tile + TILE - 1 + shape.window - job.position) * group) if shape.window > 0 else rows
    shaped = shape.cap > 0 or shape.slopes != 0 or shape.scale <= 0
    factors = at(room.factors, REAL)
    k_depth, v_depth = dim // per_word, (held + per_word - 1) // per_word
    chunks = (end - begin + ROWS - 1) // ROWS + (1 if (end - begin) % ROWS > 2 else 0)
    k_step, v_step = ask_bytes // max(chunks * k_depth, 1), ask_bytes // max(chunks * v_depth, 1)
    r = begin
    while r < end:
        some, line = ROWS if end - r >= ROWS else 2 if end - r >= 2 else 1, h * rows + r
        _key_scores(some, room.queries + line * row, row, room.key_tile, room.scores, k_depth, k_ask, k_step, form)
        k_ask += k_depth * k_step
        for i in range(some):
            p = job.position + (r + i) // group
            low = max(0, p - shape.window + 1) if shape.window > 0 else 0
            high = min(p, job.last - 1) if shape.causal else job.last - 1
            factors[i] = np.float32(shape.scale) * LOG2_E
            if shaped or low > tile or high < tile + TILE - 1:
                factors[i] = LOG2_E
                slope = np.float32(0.0)
                if shape.slopes != 0:
                    slope = at(shape.slopes, REAL)[(job.first_head + h) * group + (r + i) % group]
                shape_scores(
                    room.scores + 4 * TILE * i,
                    tile,
                    low,
                    high,
                    p,
                    np.float32(shape.scale),
                    np.float32(shape.cap),
                    slope,
                )
        weigh(
            some,
            room.scores,
            sums.best + 4 * line,
            sums.weights + 4 * WIDTH * line,
            room.shrink,
            room.factors,
            room.shares,
            form,
        )
        _add_values(some, room.shares, TILE * element, room.value_tile, sums.totals + 4 * width * line, width, v_depth,
                    room.shrink, v_ask, v_step, form)  # fmt: skip
        v_ask += v_depth * v_step
        r += some


@_inner
def _span(job: Job, shape: Shape, room: Room, sums: Sums, first: int, stop: int, keys: int, values: int, row_stride: int,
          page_stride: int, page_size: int, pages: Any, kind: Any, form: Any) -> None:  # fmt: skip
    """All queries of a job over keys `first … stop - 1`, perhaps none; strides in bytes."""
    _clear(sums, job.rows, padded_inner(shape.dim, WIDTH))
    if first >= stop:  # a window has left this part of the keys
        return
    start = job.first_head * shape.dim * kind.itemsize
    keys, values, row = keys + start, values + start, job.some_heads * shape.dim * kind.itemsize
    k_lines, v_lines = room.lines, room.lines + TILE * 8
    find(
        pages,
        job.sequence,
        first,
        min(TILE, stop - first),
        page_size,
        page_stride,
        row_stride,
        keys,
        values,
        k_lines,
        v_lines,
    )
    for tile in range(first, stop, TILE):
        k_next, v_next = 2 * room.lines + 2 * TILE * 8 - k_lines, 2 * room.lines + 4 * TILE * 8 - v_lines
        following = tile + TILE < stop
        if following:
            find(pages, job.sequence, tile + TILE, min(TILE, stop - tile - TILE), page_size, page_stride, row_stride,
                 keys, values, k_next, v_next)  # fmt: skip
        held = min(TILE, stop - tile)
        bring(k_lines, held, row, room.factors)
        bring(v_lines, held, row, room.factors)
        # Each head asks for its share of the next tile's keys, of which all heads lie side by side.
        share = TILE // job.some_heads if job.some_heads == shape.kv_heads and following else 0
        for h in range(job.some_heads):
            at_share = min(h * share, TILE - 1)
            _tile_of_head(job, shape, room, sums, tile, h, k_lines, v_lines, at(k_next, WHOLE)[at_share],
                          at(v_next, WHOLE)[at_share], share * row_stride, kind, form)  # fmt: skip
        k_lines, v_lines = k_next, v_next


@exact_kernel
def paged_attention(q: int, q_stride: int, keys: int, values: int, row_stride: int, page_stride: int, page_size: int,
                    pages: Any, jobs: Any, out: int, shape: Shape, scratch: int, per_worker: int, parts: int, block: int,
                    workers: int, kind: Any, form: Any) -> None:  # fmt: skip
    """`out[t] = attention(q[t], keys and values of t's sequence)`.

    Args (addresses, strides in elements, arrays): key `t` of a sequence is row `t % page_size` of page
    `pages[sequence, t // page_size]`, heads side by side; `jobs` has rows of (sequence, first row of q, its position,
    queries, keys of the sequence, first of the kv heads, kv heads, part, parts, first part's number among all), the longest
    first; part `i` of several is the `i`-th span of keys; `scratch`: 64 bytes and `per_worker` for each worker; `parts`: for
    each part of a divided job `part_size` bytes, zero at first; `block`: most rows (queries × heads) of a job; `form`: what
    products are computed in, float32 or `kind`.
    """
    at(scratch, WHOLE)[0] = 0
    size, width, part_bytes = kind.itemsize, padded_inner(shape.dim, WIDTH), _part_size(block, shape.dim)
    row_stride, page_stride = row_stride * size, page_stride * size
    for worker in prange(workers):
        room, own, earlier, _ = _room_at(
            scratch + 64 + worker * per_worker, block, shape.dim, form.itemsize, form.itemsize != size
        )
        if shape.dim % WIDTH:  # columns beyond a head's size must be numbers
            for i in range(0, room.scores - room.value_tile, 4):
                at(room.value_tile + i, REAL)[0] = np.float32(0.0)
        while True:
            number = take_number(scratch)
            if number >= len(jobs):
                break
            position, count, length = jobs[number, 2], jobs[number, 3], jobs[number, 4]
            last = position + count if shape.causal else length
            rows = count * (shape.heads // shape.kv_heads) * jobs[number, 6]
            job = Job(jobs[number, 0], jobs[number, 1], position, count, last, jobs[number, 5], jobs[number, 6], rows)
            first = max(0, position - shape.window + 1) // TILE * TILE if shape.window > 0 else 0
            begin, end = first // SPAN, (last + SPAN - 1) // SPAN
            part, of, group_at = jobs[number, 7], jobs[number, 8], parts + jobs[number, 9] * part_bytes
            sums = own
            if of > 1:
                begin, end = part, part + 1
                sums, _ = _sums_at(group_at + part * part_bytes + 64, block, shape.dim)
            _bring_queries(job, shape, room, q, q_stride, kind, form)
            _clear(earlier, rows, width)
            for span in range(begin, end):
                _span(job, shape, room, sums, max(first, span * SPAN), min(last, (span + 1) * SPAN), keys, values,
                      row_stride, page_stride, page_size, pages, kind, form)  # fmt: skip
                if of == 1:
                    _join(earlier, sums, rows, width)
            if of > 1:
                if take_number(group_at) + 1 < of:
                    continue  # who ends the last part joins them
                at(group_at, WHOLE)[0] = 0
                for span in range(first // SPAN, of):
                    sums, _ = _sums_at(group_at + span * part_bytes + 64, block, shape.dim)
                    _join(earlier, sums, rows, width)
            _end(job, shape, earlier, out, kind)

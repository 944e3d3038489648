"""Attention over pages: whole prompts, chunks over a cached beginning, and decoded tokens, in one kernel.

A program computes some tokens of one sequence for the query heads that share a key/value head, so that each cached byte is read
once for all of them; keys pass by in tiles with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). A decoded token's
keys are split over programs where there are too few sequences to keep the device busy, and the parts joined (Dao et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import Attention

from ...sequences import StepSequences
from ...step import StepHolder
from .common import LOG2E, padded, processors, tanh
from .kv_write import KeyValueWrite

LEAST_SPLIT = 256
"""Keys that are worth a program of their own."""
MOST_SPLITS = 32


@triton.jit
def attend(q, keys, values, out, sums, table, slots, firsts, lengths, blocks,
           slopes, sinks, scale, q_row, q_head, k_page, k_token, k_head, table_row,
           GROUP: tl.constexpr, DIM: tl.constexpr, DIM_TILE: tl.constexpr, PAGE: tl.constexpr, TOKENS: tl.constexpr,
           ROWS: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
           SLOPES: tl.constexpr, SINKS: tl.constexpr, SPLITS: tl.constexpr):  # fmt: skip
    """Programs: (block, key/value head, split).

    `out` is `(rows, heads, DIM)`; with splits `(rows, heads, SPLITS, DIM)` float32, not divided yet, and `sums` `(rows, heads,
    SPLITS, 2)` has the largest score, times log2(e), and the sum of weights. A row of a tile is a token and one of its heads.
    """
    block, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1) * GROUP
    sequence, offset = tl.load(blocks + 2 * block), tl.load(blocks + 2 * block + 1)
    first = tl.load(firsts + sequence)
    count = tl.load(firsts + sequence + 1) - first
    length, slot = tl.load(lengths + sequence), tl.load(slots + sequence).to(tl.int64)

    row = tl.arange(0, ROWS)
    token = offset + row // GROUP
    at_head = head * GROUP + row % GROUP
    real = (row < TOKENS * GROUP) & (token < count)
    position = length - count + token
    d = tl.arange(0, DIM_TILE)
    in_dim = d < DIM
    line = (first + token).to(tl.int64)
    query = tl.load(q + line[:, None] * q_row + at_head[:, None] * q_head + d[None, :],
                    mask=real[:, None] & in_dim[None, :], other=0.0)  # fmt: skip

    start, stop = 0, length
    if CAUSAL:
        stop = length - count + tl.minimum(offset + TOKENS, count)
    if WINDOW > 0:
        start = tl.maximum(length - count + offset - WINDOW + 1, 0) // KEYS * KEYS
    if SPLITS > 1:
        each = tl.cdiv(tl.cdiv(stop - start, KEYS), SPLITS) * KEYS
        start = start + split * each
        stop = tl.minimum(stop, start + each)

    best = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((ROWS,), dtype=tl.float32)
    total = tl.zeros((ROWS, DIM_TILE), dtype=tl.float32)
    if SINKS:  # a score like any other, but without a value; of one split
        mine = split == 0
        sink = tl.load(sinks + at_head).to(tl.float32) * LOG2E
        best = tl.where(mine, sink, best)
        weight = tl.where(mine, weight + 1.0, weight)
    if SLOPES:
        slope = tl.load(slopes + at_head).to(tl.float32)

    for n in range(start, stop, KEYS):
        key = n + tl.arange(0, KEYS)
        there = key < stop
        page = tl.load(table + slot * table_row + key // PAGE, mask=there, other=0).to(tl.int64)
        at = page * k_page + (key % PAGE) * k_token + head * k_head
        k = tl.load(keys + at[None, :] + d[:, None], mask=in_dim[:, None] & there[None, :], other=0.0)
        scores = tl.dot(query, k, input_precision="ieee") * scale
        if CAP > 0:
            scores = CAP * tanh(scores / CAP)
        distance = key[None, :] - position[:, None]
        if SLOPES:
            scores += slope[:, None] * distance
        seen = there[None, :] & real[:, None]
        if CAUSAL:
            seen = seen & (distance <= 0)
        if WINDOW > 0:
            seen = seen & (distance > -WINDOW)
        scores = tl.where(seen, scores * LOG2E, float("-inf"))
        top = tl.maximum(best, tl.max(scores, 1))
        # A row that has seen no key yet: minus infinity from minus infinity would be no number.
        base = tl.where(top == float("-inf"), 0.0, top)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(best - base)
        weight = weight * shrink + tl.sum(weights, 1)
        v = tl.load(values + at[:, None] + d[None, :], mask=there[:, None] & in_dim[None, :], other=0.0)
        total = total * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        best = top

    place = line * heads + at_head
    if SPLITS > 1:
        place = place * SPLITS + split
        tl.store(sums + place * 2, best, mask=real)
        tl.store(sums + place * 2 + 1, weight, mask=real)
    else:
        total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    tl.store(
        out + place[:, None] * DIM + d[None, :], total.to(out.dtype.element_ty), mask=real[:, None] & in_dim[None, :]
    )


@triton.jit
def join(parts, sums, out, DIM: tl.constexpr, DIM_TILE: tl.constexpr, SPLITS: tl.constexpr):
    """Programs: one for each token and head. What `attend` left in splits becomes one."""
    place = tl.program_id(0).to(tl.int64)
    split, d = tl.arange(0, SPLITS), tl.arange(0, DIM_TILE)
    best = tl.load(sums + (place * SPLITS + split) * 2)
    weight = tl.load(sums + (place * SPLITS + split) * 2 + 1)
    top = tl.max(best, 0)
    share = tl.exp2(best - tl.where(top == float("-inf"), 0.0, top))
    part = tl.load(parts + (place * SPLITS + split)[:, None] * DIM + d[None, :], mask=(d < DIM)[None, :], other=0.0)
    total = tl.sum(part * share[:, None], 0) / tl.sum(weight * share, 0)
    tl.store(out + place * DIM + d, total.to(out.dtype.element_ty), mask=d < DIM)


@dataclass(frozen=True)
class Scores:
    """How scores become weights; see `sdk.layers.attention_reference`."""

    scale: float
    causal: bool = True
    window: int = 0
    cap: float = 0.0
    slopes: Tensor | None = None
    sinks: Tensor | None = None


def attend_pages(
    q: Tensor, keys: Tensor, values: Tensor, table: Tensor, sequences: StepSequences, scores: Scores, busy: int = 1
) -> Tensor:
    """Attention of a step's tokens over the pages of their sequences.

    Args:
        q: `(tokens, heads, head_dim)`, rotated.
        keys, values: `(pages, page_size, kv_heads, head_dim)`, contiguous.
        table: `(slots, pages)` int32.
        sequences: The step's.
        scores: How they are weighed.
        busy: Programs that it takes to keep the device busy.

    Returns:
        `(tokens, heads * head_dim)`.
    """
    tokens, heads, dim = q.shape
    kv_heads = keys.shape[2]
    group, out = heads // kv_heads, q.new_empty(tokens, heads * dim)
    wide = dim > 128 or q.element_size() > 2
    rows = padded(group, 16 if wide else 64)
    blocks = sequences.blocks(max(1, rows // group))
    decodes, longer = blocks.decodes, len(blocks.where) - blocks.decodes

    def run(first: int, count: int, tile: int, splits: int, into: Tensor, sums: Tensor | None) -> None:
        attend[(count, kv_heads, splits)](
            q, keys, values, into, sums, table, sequences.slots, sequences.firsts, sequences.lengths, blocks.where[first:],
            scores.slopes, scores.sinks, scores.scale, q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), keys.stride(2),
            table.stride(0), GROUP=group, DIM=dim, DIM_TILE=padded(dim, 16), PAGE=keys.shape[1], TOKENS=max(1, tile // group),
            ROWS=tile, KEYS=32 if wide else 64, CAUSAL=scores.causal, WINDOW=scores.window, CAP=scores.cap,
            SLOPES=scores.slopes is not None, SINKS=scores.sinks is not None, SPLITS=splits, num_warps=4,
        )  # fmt: skip

    if longer:
        run(decodes, longer, rows, 1, out, None)
    if decodes:
        splits = _splits(busy, decodes * kv_heads, sequences.longest)
        if splits == 1:
            run(0, decodes, padded(group, 16), 1, out, None)
        else:
            parts = q.new_empty(decodes, heads, splits, dim, dtype=torch.float32)
            sums = q.new_empty(decodes, heads, splits, 2, dtype=torch.float32)
            run(0, decodes, padded(group, 16), splits, parts, sums)
            join[(decodes * heads,)](parts, sums, out, DIM=dim, DIM_TILE=padded(dim), SPLITS=splits, num_warps=4)
    return out


def _splits(busy: int, programs: int, longest: int) -> int:
    """Into how many parts the keys of a decoded token are split: a power of two, each part worth its program."""
    splits = 1
    while splits < MOST_SPLITS and programs * splits < busy and longest >= 2 * splits * LEAST_SPLIT:
        splits *= 2
    return splits


class TritonAttention:
    """Fills one `sdk.layers.Attention`: writes the step's keys and values to their pages and attends over them.

    Args:
        layer: The layer, for its shape and options.
        keys, values: `(pages, page_size, kv_heads, head_dim)`, this layer's part of the pool.
        step: Where the running step is found.
    """

    def __init__(self, layer: Attention, keys: Tensor, values: Tensor, step: StepHolder) -> None:
        self.keys, self.values, self.step = keys, values, step
        self.write = KeyValueWrite(layer, keys, values)
        self.scores = Scores(
            layer.scale,
            window=layer.sliding_window or 0,
            cap=layer.logit_softcap or 0.0,
            slopes=layer.alibi_slopes,
            sinks=layer.sinks,
        )
        self.busy = 2 * processors(keys.device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None) -> Tensor:
        step = self.step.tensors
        q = self.write(step, q, k, v, positions)
        return attend_pages(q, self.keys, self.values, step.pages, step.sequences, self.scores, self.busy)

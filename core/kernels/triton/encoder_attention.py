"""Attention in both directions over items, as encoders use it: padded to one length, or laid end to end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import EncoderAttention, PackedEncoderAttention

from ...transfer import send
from .common import LOG2E, padded


@triton.jit
def attend_items(q, k, v, out, firsts, mask, scale, queries, keys, q_item,
                 q_row, q_head, k_item, k_row, k_head, v_item, v_row, v_head,
                 DIM: tl.constexpr, DIM_TILE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PACKED: tl.constexpr,
                 MASKED: tl.constexpr):  # fmt: skip
    """Programs: (block of queries, head, item).

    `out` is contiguous; `firsts` tells where packed items begin, `mask` which keys are seen.
    """
    item, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    offset = tl.program_id(0) * ROWS
    first = item * queries
    if PACKED:
        first = tl.load(firsts + item).to(tl.int64)
        queries = (tl.load(firsts + item + 1) - first).to(tl.int32)
        keys = queries
        q, k, v = q + first * q_row, k + first * k_row, v + first * v_row
    else:
        q, k, v = q + item * q_item, k + item * k_item, v + item * v_item
    row, d = offset + tl.arange(0, ROWS), tl.arange(0, DIM_TILE)
    real, in_dim = row < queries, d < DIM
    line = row.to(tl.int64)
    query = tl.load(
        q + line[:, None] * q_row + head * q_head + d[None, :], mask=real[:, None] & in_dim[None, :], other=0.0
    )
    best = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((ROWS,), dtype=tl.float32)
    total = tl.zeros((ROWS, DIM_TILE), dtype=tl.float32)
    stop = tl.where(offset < queries, keys, 0)  # a block beyond a short item has nothing to do
    for n in range(0, stop, KEYS):
        key = n + tl.arange(0, KEYS)
        there = key < stop
        at = key.to(tl.int64)
        kt = tl.load(
            k + at[None, :] * k_row + head * k_head + d[:, None], mask=in_dim[:, None] & there[None, :], other=0.0
        )
        scores = tl.dot(query, kt, input_precision="ieee") * scale * LOG2E
        seen = there
        if MASKED:
            seen = there & (tl.load(mask + item * keys + key, mask=there, other=0) != 0)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        top = tl.maximum(best, tl.max(scores, 1))
        # A row that has seen no key yet: minus infinity from minus infinity would be no number.
        base = tl.where(top == float("-inf"), 0.0, top)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(best - base)
        weight = weight * shrink + tl.sum(weights, 1)
        vt = tl.load(
            v + at[:, None] * v_row + head * v_head + d[None, :], mask=seen[:, None] & in_dim[None, :], other=0.0
        )
        total = total * shrink[:, None] + tl.dot(weights.to(vt.dtype), vt, input_precision="ieee")
        best = top
    total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    place = (first + line) * tl.num_programs(1) + head
    tl.store(
        out + place[:, None] * DIM + d[None, :], total.to(out.dtype.element_ty), mask=real[:, None] & in_dim[None, :]
    )


def _run(q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor, items: int, queries: int, strides: Sequence[int],
         firsts: Tensor | None, mask: Tensor | None) -> None:  # fmt: skip
    heads, dim = q.shape[-2:]
    wide = dim > 128 or q.element_size() > 2
    rows = 32 if wide else 64
    attend_items[(-(-queries // rows), heads, items)](
        q, k, v, out, firsts, mask, scale, queries, k.shape[1], *strides, DIM=dim, DIM_TILE=padded(dim, 16), ROWS=rows,
        KEYS=32 if wide else 64, PACKED=firsts is not None, MASKED=mask is not None, num_warps=4,
    )  # fmt: skip


class TritonEncoderAttention:
    """Fills one `sdk.layers.EncoderAttention`."""

    def __init__(self, layer: EncoderAttention) -> None:
        self.scale = layer.scale

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        items, queries, heads, dim = q.shape
        out = q.new_empty(items, queries, heads * dim)
        if out.numel():
            seen = mask.contiguous().view(torch.uint8) if mask is not None else None
            strides = [s for x in (q, k, v) for s in x.stride()[:3]]
            _run(q, k, v, self.scale, out, items, queries, strides, None, seen)
        return out


class TritonPackedEncoderAttention:
    """Fills one `sdk.layers.PackedEncoderAttention`."""

    def __init__(self, layer: PackedEncoderAttention) -> None:
        self.scale = layer.scale

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out = q.new_empty(len(q), q.shape[1] * q.shape[2])
        if len(lengths) and max(lengths):
            firsts = send(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), q.device)
            strides = [s for x in (q, k, v) for s in (0, *x.stride()[:2])]
            _run(q, k, v, self.scale, out, len(lengths), max(lengths), strides, firsts, None)
        return out

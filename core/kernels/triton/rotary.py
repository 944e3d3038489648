"""Rotary position embedding. Every kind comes down to cosines and sines, which the layer computes once a step."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import RotaryEmbedding

from .common import padded


@triton.jit
def rotate_heads(x, x_head, out, out_head, cos, sin, HEADS: tl.constexpr, HEADS_TILE: tl.constexpr,
                 DIM: tl.constexpr, HALF: tl.constexpr, HALF_TILE: tl.constexpr, REST_TILE: tl.constexpr,
                 INTERLEAVED: tl.constexpr):  # fmt: skip
    """In a kernel: the heads of one token at `x`, rotated, to `out`; what is beyond the rotated part is copied.

    `cos` and `sin` point to this token's; `HALF` 0: a copy.
    """
    head, i = tl.arange(0, HEADS_TILE), tl.arange(0, HALF_TILE)
    if HALF > 0:
        mask = (head < HEADS)[:, None] & (i < HALF)[None, :]
        if INTERLEAVED:
            low, high = 2 * i, 2 * i + 1
        else:
            low, high = i, i + HALF
        c = tl.load(cos + i, mask=i < HALF, other=0.0)[None, :]
        s = tl.load(sin + i, mask=i < HALF, other=0.0)[None, :]
        a = tl.load(x + head[:, None] * x_head + low[None, :], mask=mask, other=0.0).to(tl.float32)
        b = tl.load(x + head[:, None] * x_head + high[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(out + head[:, None] * out_head + low[None, :], (a * c - b * s).to(out.dtype.element_ty), mask=mask)
        tl.store(out + head[:, None] * out_head + high[None, :], (b * c + a * s).to(out.dtype.element_ty), mask=mask)
    if DIM > 2 * HALF:
        j = 2 * HALF + tl.arange(0, REST_TILE)
        rest = (head < HEADS)[:, None] & (j < DIM)[None, :]
        kept = tl.load(x + head[:, None] * x_head + j[None, :], mask=rest, other=0.0)
        tl.store(out + head[:, None] * out_head + j[None, :], kept, mask=rest)


@triton.jit
def _rotate(x, out, cos, sin, x_row, x_head, HEADS: tl.constexpr, HEADS_TILE: tl.constexpr,
            DIM: tl.constexpr, HALF: tl.constexpr, HALF_TILE: tl.constexpr, REST_TILE: tl.constexpr,
            INTERLEAVED: tl.constexpr):  # fmt: skip
    """Programs: tokens."""
    token = tl.program_id(0).to(tl.int64)
    rotate_heads(x + token * x_row, x_head, out + token * HEADS * DIM, DIM, cos + token * HALF, sin + token * HALF,
                 HEADS, HEADS_TILE, DIM, HALF, HALF_TILE, REST_TILE, INTERLEAVED)  # fmt: skip


def tiles(heads: int, dim: int, half: int) -> dict[str, int]:
    """The constants of `rotate_heads` that follow from a shape."""
    return {
        "HEADS": heads,
        "HEADS_TILE": padded(heads),
        "DIM": dim,
        "HALF": half,
        "HALF_TILE": padded(half),
        "REST_TILE": padded(dim - 2 * half),
    }


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """As `sdk.layers.rotary.rotate`: x `(tokens, heads, head_dim)`; cos, sin `(tokens, rotary_dim / 2)` float32, contiguous."""
    tokens, heads, dim = x.shape
    out = x.new_empty(x.shape)
    if tokens:
        _rotate[(tokens,)](x, out, cos, sin, x.stride(0), x.stride(1), **tiles(heads, dim, cos.shape[-1]),
                           INTERLEAVED=interleaved, num_warps=4)  # fmt: skip
    return out


class TritonRotary:
    """Fills one `sdk.layers.RotaryEmbedding` that a model calls by itself; shapes as of the layer."""

    def __init__(self, layer: RotaryEmbedding) -> None:
        self.layer = layer

    def __call__(self, positions: Tensor, q: Tensor, k: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if q.ndim != 3 or q.stride(-1) != 1 or k.stride(-1) != 1:
            return self.layer.reference(positions, q, k, lengths)
        cos, sin = (x.contiguous() for x in self.layer.cos_sin(positions, lengths))
        return rotate(q, cos, sin, self.layer.interleaved), rotate(k, cos, sin, self.layer.interleaved)

"""Keys and values to their pages, rotated on the way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import Attention

from ...step import StepTensors
from .rotary import rotate_heads, tiles


@triton.jit
def rotate_and_write(q, k, v, q_out, keys, values, slots, cos, sin, q_row,
                     q_head, k_row, k_head, v_row, v_head, Q_HEADS: tl.constexpr, Q_TILE: tl.constexpr,
                     HEADS: tl.constexpr, HEADS_TILE: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr,
                     HALF_TILE: tl.constexpr, REST_TILE: tl.constexpr, WHOLE_TILE: tl.constexpr,
                     INTERLEAVED: tl.constexpr):  # fmt: skip
    """Programs: (token, keys and values or queries). Without a rotation (`HALF` 0) queries are left where they are."""
    token = tl.program_id(0).to(tl.int64)
    cos_here, sin_here = cos, sin
    if HALF > 0:
        cos_here, sin_here = cos + token * HALF, sin + token * HALF
    if tl.program_id(1) == 0:
        slot = tl.load(slots + token) * HEADS * DIM
        rotate_heads(k + token * k_row, k_head, keys + slot, DIM, cos_here, sin_here, HEADS, HEADS_TILE, DIM, HALF, HALF_TILE,
                     REST_TILE, INTERLEAVED)  # fmt: skip
        rotate_heads(v + token * v_row, v_head, values + slot, DIM, cos_here, sin_here, HEADS, HEADS_TILE, DIM, 0, 1,
                     WHOLE_TILE, INTERLEAVED)  # fmt: skip
    else:
        rotate_heads(q + token * q_row, q_head, q_out + token * Q_HEADS * DIM, DIM, cos_here, sin_here, Q_HEADS, Q_TILE, DIM,
                     HALF, HALF_TILE, REST_TILE, INTERLEAVED)  # fmt: skip


class KeyValueWrite:
    """Writes a step's keys and values for one layer; see `TritonAttention`."""

    def __init__(self, layer: Attention, keys: Tensor, values: Tensor) -> None:
        self.layer, self.keys, self.values = layer, keys, values

    def __call__(self, step: StepTensors, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None) -> Tensor:
        """Rotate q and k, and write k and v: `(tokens, heads, head_dim)` each; returns q."""
        layer, half, interleaved, cos, sin = self.layer, 0, False, None, None
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out = q
        if layer.rotary is not None:
            cos, sin = (x.contiguous() for x in step.cos_sin(layer.rotary, torch.float32, positions))
            half, interleaved, out = (
                cos.shape[-1],
                layer.rotary.interleaved,
                torch.empty_like(q, memory_format=torch.contiguous_format),
            )
        sizes = tiles(layer.num_kv_heads, layer.head_dim, half)
        rotate_and_write[(len(q), 1 if cos is None else 2)](
            q, k, v, out, self.keys, self.values, step.cache_slots, cos, sin, q.stride(0), q.stride(1), k.stride(0), k.stride(1),
            v.stride(0), v.stride(1), **sizes, Q_HEADS=layer.num_heads, Q_TILE=tiles(layer.num_heads, 1, 0)["HEADS_TILE"],
            WHOLE_TILE=tiles(1, layer.head_dim, 0)["REST_TILE"], INTERLEAVED=interleaved, num_warps=4,
        )  # fmt: skip
        return out

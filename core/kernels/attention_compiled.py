"""The compiled parts of paged attention on a CPU: rotary with the write of K/V, and decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import Attention

from ..step import AttentionGroup, StepTensors
from ._decode import paged_decode
from ._rows import rotary_and_write
from .compiled import kind_of


class CompiledAttention:
    """Serves one layer; see `PagedAttention`.

    Args:
        layer: A layer whose rotary embedding, if any, rotates halves.
        keys, values: The layer's part of the pool.
    """

    def __init__(self, layer: Attention, keys: Tensor, values: Tensor) -> None:
        self.layer, self.keys, self.values = layer, keys, values
        self.kind, self.float_kind = kind_of(keys.dtype), kind_of(torch.float32)

    @staticmethod
    def can_serve(layer: Attention) -> bool:
        """Whether these kernels know what the layer asks for."""
        return layer.rotary is None or not layer.rotary.interleaved

    @property
    def decodes(self) -> bool:
        """Whether `decode` knows what the layer asks for; the other parts serve any layer."""
        return self.layer.sinks is None and self.layer.alibi_slopes is None

    def reads(self, *tensors: Tensor) -> bool:
        """Whether these `(tokens, heads, head_dim)` tensors lie as the kernels want them: heads side by side."""
        dtype, dim = self.keys.dtype, self.layer.head_dim
        return all(t.dtype == dtype and t.stride(-1) == 1 and t.stride(-2) == dim for t in tensors)

    def rotate_and_write(
        self, step: StepTensors, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Rotate q and k, write k and v to their pages; returns the rotated ones."""
        layer, half, cos, sin = self.layer, 0, None, None
        if layer.rotary is not None:
            cos, sin = (x.contiguous() for x in step.cos_sin(layer.rotary, torch.float32, positions))
            half = cos.shape[-1]
        q_out, k_out = torch.empty(q.shape, dtype=q.dtype), torch.empty(k.shape, dtype=k.dtype)
        rotary_and_write(
            q.numel(),
            q.data_ptr(),
            q.stride(0),
            k.data_ptr(),
            k.stride(0),
            v.data_ptr(),
            v.stride(0),
            cos.data_ptr() if cos is not None else 0,
            sin.data_ptr() if sin is not None else 0,
            half,
            q_out.data_ptr(),
            k_out.data_ptr(),
            self.keys.data_ptr(),
            self.values.data_ptr(),
            step.cache_slots.numpy(),
            layer.num_heads,
            layer.num_kv_heads,
            layer.head_dim,
            self.float_kind,
            self.kind,
        )
        return q_out, k_out

    def decode(self, group: AttentionGroup, q: Tensor) -> Tensor:
        """One query a sequence: `(sequences, 1, heads, head_dim)` → `(sequences, 1, heads * head_dim)`."""
        layer = self.layer
        out = torch.empty(q.shape[0], 1, layer.num_heads * layer.head_dim, dtype=q.dtype)
        paged_decode(
            q.numel() * group.num_keys,
            q.data_ptr(),
            q.stride(0),
            self.keys.data_ptr(),
            self.values.data_ptr(),
            group.pages.numpy(),
            group.lengths,
            out.data_ptr(),
            layer.num_heads,
            layer.num_kv_heads,
            layer.head_dim,
            self.keys.shape[1],
            layer.scale,
            layer.logit_softcap or 0.0,
            layer.sliding_window or 0,
            self.kind,
        )
        return out

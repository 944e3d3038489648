"""Cross-attention by the compiled kernel of paged decoding: every token is a query of its own over its request's state."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import CrossAttention

from ..cache.states import STATE_PAGE
from ..step import StepStates
from ._decode import paged_decode
from .compiled import kind_of


class CompiledCrossAttention:
    """Serves one layer; see `StateAttention`.

    Args:
        layer: The layer, for its shape.
        keys, values: `(states, rows, kv_heads, head_dim)`, contiguous; rows a multiple of `STATE_PAGE`.
    """

    def __init__(self, layer: CrossAttention, keys: Tensor, values: Tensor) -> None:
        self.layer, self.keys, self.values = layer, keys, values
        self.kind = kind_of(keys.dtype)
        self.pages_per_state = keys.shape[1] // STATE_PAGE

    def reads(self, q: Tensor) -> bool:
        """Whether these `(tokens, heads, head_dim)` queries lie as the kernel wants them: heads side by side."""
        return q.dtype == self.keys.dtype and q.stride(-1) == 1 and q.stride(-2) == self.layer.head_dim

    def __call__(self, states: StepStates, q: Tensor) -> Tensor:
        layer = self.layer
        out = torch.empty(len(q), layer.num_heads * layer.head_dim, dtype=q.dtype)
        paged_decode(
            q.numel() * states.max_length,
            q.data_ptr(),
            q.stride(0),
            self.keys.data_ptr(),
            self.values.data_ptr(),
            states.pages(self.pages_per_state),
            states.lengths,
            out.data_ptr(),
            layer.num_heads,
            layer.num_kv_heads,
            layer.head_dim,
            STATE_PAGE,
            layer.scale,
            0.0,
            0,
            self.kind,
        )
        return out

"""Attention in both directions over items that lie end to end: pictures of any size in one batch, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .attention import attention_reference
from .base import Layer


class PackedEncoderAttention(Layer):
    """Every row sees the rows of its own item and no others (Dehghani et al. 2023).

    `EncoderAttention` is the same for items that are padded to one length.

    Args:
        num_heads: Heads.
        head_dim: Width of a head.
        scale: Multiplies the scores; `head_dim ** -0.5` when not given.

    Shapes: q, k, v `(rows, heads, head_dim)`, lengths: rows of each item, which add up to all → `(rows, heads * head_dim)`.
    """

    def __init__(self, num_heads: int, head_dim: int, scale: float | None = None, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.scale = head_dim**-0.5 if scale is None else scale

    def reference(self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        items = zip(*(torch.split(x, list(lengths)) for x in (q, k, v)))
        made = [attention_reference(*item, scale=self.scale, causal=False) for item in items]
        return torch.cat([q.new_empty(0, self.num_heads * self.head_dim), *made])

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, head_dim={self.head_dim}"

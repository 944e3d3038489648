"""Attention in both directions over the tokens of a sequence, as encoder-only language models use it."""

from __future__ import annotations

from torch import Tensor

from .attention import attention_reference
from .base import Layer


class BidirectionalAttention(Layer):
    """Every token sees all tokens of its own sequence (Vaswani et al. 2017), before and after it.

    It keeps nothing of what it has seen: an engine computes each sequence whole, in one step. A model that uses it says
    `chunked_prefill="no"` and `prefix_caching=False` in its capabilities.

    Args:
        num_heads: Heads.
        head_dim: Width of a head.
        scale: Multiplies the scores; `head_dim ** -0.5` when not given.

    Shapes: q, k, v `(tokens, heads, head_dim)` → `(tokens, heads * head_dim)`.
    """

    def __init__(self, num_heads: int, head_dim: int, scale: float | None = None, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.scale = head_dim**-0.5 if scale is None else scale

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_reference(q, k, v, scale=self.scale, causal=False)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, head_dim={self.head_dim}"

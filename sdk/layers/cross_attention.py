"""Attention of a decoder over what an encoder made of a request's media."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .attention import attention_reference
from .base import Layer

Projection = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`(n, hidden)` encoder states → keys and values, each `(n, kv_heads_here, head_dim)`."""


class CrossAttention(Layer):
    """Every query sees all encoder states of its own request (Vaswani et al. 2017, section 3.2.3).

    The layer owns state: an engine projects a request's encoder states once, keeps their keys and values while the request runs,
    and gives the layer's kernel no encoder states any more.

    Args:
        num_heads: Query heads.
        head_dim: Width of a head.
        project: Makes keys and values of encoder states; usually a method with the model's own `k_proj` and `v_proj`.
        scale: Multiplies the scores; `head_dim ** -0.5` when not given.
        num_kv_heads: Key/value heads; as many as query heads when not given.

    Shapes: q `(tokens, heads, head_dim)`, encoder_states `(n, hidden)` → `(tokens, heads * head_dim)`.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        project: Projection,
        scale: float | None = None,
        num_kv_heads: int | None = None,
        *,
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim, self.project = num_heads, head_dim, project
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.scale = head_dim**-0.5 if scale is None else scale

    def reference(self, q: Tensor, encoder_states: Tensor | None = None) -> Tensor:
        if encoder_states is None:
            raise ValueError("outside an engine, cross-attention needs encoder_states: pass what `encode` returned")
        k, v = self.project(encoder_states)
        return attention_reference(q, k, v, scale=self.scale, causal=False)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, kv_heads={self.num_kv_heads}, head_dim={self.head_dim}"

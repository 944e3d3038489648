"""The self-attention of a decoder: its projections around the layer that keeps K/V."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .attention import Attention
from .linear import QKVParallelLinear, RowParallelLinear
from .rotary import RotaryEmbedding


class SelfAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions.

    Args:
        config: Its `hidden_size`, `num_attention_heads` and `num_key_value_heads`.
        rotary: The rotary embedding, which many layers share; it brings the width of a head.
        qkv_bias: Whether the first projection has one.
        output_bias: Whether the last projection has one.
        scale: As of `Attention`.
        sliding_window: As of `Attention`.
        logit_softcap: As of `Attention`.

    Shapes: positions `(tokens,)`, x `(tokens, hidden)` → `(tokens, hidden)`.
    """

    def __init__(
        self,
        config: Any,
        rotary: RotaryEmbedding,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
        scale: float | None = None,
        sliding_window: int | None = None,
        logit_softcap: float | None = None,
    ) -> None:
        super().__init__()
        heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, rotary.head_dim
        self.qkv_proj = QKVParallelLinear(config.hidden_size, head_dim, heads, kv_heads, qkv_bias)
        self.attn = Attention(
            heads,
            head_dim,
            scale,
            kv_heads,
            sliding_window=sliding_window,
            logit_softcap=logit_softcap,
            rotary=rotary,
        )
        self.o_proj = RowParallelLinear(heads * head_dim, config.hidden_size, output_bias)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        out: Tensor = self.o_proj(self.attn(q, k, v, positions))
        return out


def sliding_windows(config: Any) -> list[int | None]:
    """How many positions each layer sees, `None` for all: the layers that `layer_types` calls sliding; every layer where
    the config has no `layer_types`."""
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in types]

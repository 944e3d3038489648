"""Qwen3 (Qwen Team 2025): a pre-norm decoder that normalises each head of queries and keys."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdk import CausalLM
from sdk.layers import Decoder, GatedMLP, PreNormBlock, RMSNorm, RotaryEmbedding, SelfAttention, sliding_windows


class Qwen3Attention(SelfAttention):
    """Grouped-query attention with a norm over each head of q and k: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, window: int | None, rotary: RotaryEmbedding) -> None:
        bias = config.attention_bias
        super().__init__(config, rotary, qkv_bias=bias, output_bias=bias, sliding_window=window)
        self.q_norm = RMSNorm(rotary.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(rotary.head_dim, config.rms_norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.o_proj(self.attn(self.q_norm(q), self.k_norm(k), v, positions))


class Qwen3ForCausalLM(CausalLM):
    """Qwen3's dense models."""

    def build_decoder(self, config: Any) -> Decoder:
        rotary = RotaryEmbedding(config)

        def block(window: int | None) -> PreNormBlock:
            mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
            return PreNormBlock(Qwen3Attention(config, window, rotary), mlp, config.hidden_size, config.rms_norm_eps)

        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        return Decoder(config, rotary, map(block, sliding_windows(config)), norm)

"""LFM2 (Liquid AI 2025): gated short convolutions in most layers, grouped-query attention in some."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import Decoder, GatedMLP, RMSNorm, RotaryEmbedding, SelfAttention, ShortConv


class Lfm2Attention(SelfAttention):
    """Grouped-query attention with a norm over each head of q and k: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__(config, rotary)
        self.q_layernorm = RMSNorm(rotary.head_dim, config.norm_eps)
        self.k_layernorm = RMSNorm(rotary.head_dim, config.norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.o_proj(self.attn(self.q_layernorm(q), self.k_layernorm(k), v, positions))


class Lfm2Block(nn.Module):
    """A convolution or attention, then an MLP, each behind a norm; threads its residual stream as `PreNormBlock` does."""

    def __init__(self, config: Any, rotary: RotaryEmbedding, kind: str) -> None:
        super().__init__()
        self.is_attention = kind == "full_attention"
        if self.is_attention:
            self.self_attn = Lfm2Attention(config, rotary)
        else:
            self.conv = ShortConv(config.hidden_size, config.conv_L_cache, config.conv_bias)
        self.feed_forward = GatedMLP(config.hidden_size, mlp_width(config), "silu")
        self.operator_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.operator_norm.join(x, residual)
        x = self.self_attn(positions, x) if self.is_attention else self.conv(x)
        x, residual = self.ffn_norm.join(x, residual)
        return self.feed_forward(x), residual


def mlp_width(config: Any) -> int:
    """What the config's width comes to: two thirds of it, times a factor, rounded up."""
    width = int(config.intermediate_size)
    if not config.block_auto_adjust_ff_dim:
        return width
    factor, multiple = config.block_ffn_dim_multiplier, config.block_multiple_of
    width = int(2 * width / 3)
    return -(-int(width if factor is None else factor * width) // multiple) * multiple


class Lfm2ForCausalLM(CausalLM):
    """LFM2's dense models."""

    weight_map = WeightMap(
        rename=[
            (r"\bembedding_norm\.", "norm."),
            (r"\bself_attn\.out_proj\.", "self_attn.o_proj."),
            (r"\bfeed_forward\.w1\.", "feed_forward.gate_proj."),
            (r"\bfeed_forward\.w3\.", "feed_forward.up_proj."),
            (r"\bfeed_forward\.w2\.", "feed_forward.down_proj."),
        ],
        drop=CausalLM.weight_map.drop,
    )

    def build_decoder(self, config: Any) -> Decoder:
        rotary = RotaryEmbedding(config)
        blocks = [Lfm2Block(config, rotary, kind) for kind in config.layer_types]
        return Decoder(config, rotary, blocks, RMSNorm(config.hidden_size, config.norm_eps))

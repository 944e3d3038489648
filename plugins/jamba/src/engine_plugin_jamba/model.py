"""Jamba (Lieber et al. 2024): Mamba in most layers, attention in some, and experts in every other MLP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import (
    Attention,
    Experts,
    GatedMLP,
    MambaMixer,
    QKVParallelLinear,
    RMSNorm,
    RowParallelLinear,
    TopKRouter,
    VocabParallelEmbedding,
)


class JambaAttention(nn.Module):
    """Grouped-query attention without positions, which the layers of Mamba bring: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
        head_dim = size // heads
        self.qkv_proj = QKVParallelLinear(size, head_dim, heads, kv_heads, bias=False)
        self.attn = Attention(heads, head_dim, num_kv_heads=kv_heads)
        self.o_proj = RowParallelLinear(heads * head_dim, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o_proj(self.attn(*self.qkv_proj(x)))
        return out


class JambaExperts(nn.Module):
    """A few of many MLPs for each token, weighted as the router says: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, count = config.hidden_size, config.num_experts
        self.router = TopKRouter(size, count, config.num_experts_per_tok, normalize=False)
        self.experts = Experts(count, size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.experts(x, *self.router(x))
        return out


def build_mamba(config: Any) -> MambaMixer:
    """Mamba with norms over its step sizes, inputs and outputs."""
    return MambaMixer(
        config.hidden_size,
        config.mamba_expand * config.hidden_size,
        config.mamba_d_state,
        config.mamba_d_conv,
        config.mamba_dt_rank,
        bias=config.mamba_proj_bias,
        conv_bias=config.mamba_conv_bias,
        activation=config.hidden_act,
        norm_eps=config.rms_norm_eps,
    )


class JambaBlock(nn.Module):
    """Mamba or attention, then one MLP or experts, each behind a norm; x and residual as `PreNormBlock` threads them."""

    def __init__(self, config: Any, kind: str, num_experts: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.mixer = JambaAttention(config) if kind == "attention" else build_mamba(config)
        mlp = GatedMLP(size, config.intermediate_size, config.hidden_act)
        self.feed_forward = JambaExperts(config) if num_experts > 1 else mlp
        self.input_layernorm, self.pre_ff_layernorm = RMSNorm(size, eps), RMSNorm(size, eps)

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.input_layernorm.join(x, residual)
        x, residual = self.pre_ff_layernorm.join(self.mixer(x), residual)
        return self.feed_forward(x), residual


class JambaDecoder(nn.Module):
    """The embedding, the blocks and the last norm; order is in the states, so positions are not used."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        kinds = zip(config.layers_block_type, config.layers_num_experts)
        self.layers = nn.ModuleList(JambaBlock(config, kind, num_experts) for kind, num_experts in kinds)
        self.final_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual)
        return self.final_layernorm.join(x, residual)[0]


class JambaForCausalLM(CausalLM):
    """Jamba v0.1, 1.5 and 1.6, Jamba Mini and Large."""

    weight_map = WeightMap(rename=[(r"\.(self_attn|mamba)\.", ".mixer.")])

    def build_decoder(self, config: Any) -> JambaDecoder:
        return JambaDecoder(config)

"""Jamba (Lieber et al. 2024): Mamba in most layers, attention in some, and experts in every other MLP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import (
    Attention,
    Decoder,
    Experts,
    GatedMLP,
    MambaMixer,
    QKVParallelLinear,
    RMSNorm,
    RowParallelLinear,
    TopKRouter,
)


class JambaAttention(nn.Module):
    """Grouped-query attention without positions, which the layers of Mamba bring: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
        head_dim = getattr(config, "head_dim", None) or size // heads
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
    """Mamba or attention, then one MLP or experts, each behind a norm, with the residual stream of `PreNormBlock`. Order is in
    the states: positions are not used."""

    def __init__(self, config: Any, kind: str, num_experts: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.mixer = JambaAttention(config) if kind == "attention" else build_mamba(config)
        self.feed_forward = (
            JambaExperts(config) if num_experts > 1 else GatedMLP(size, config.intermediate_size, config.hidden_act)
        )
        self.input_layernorm, self.pre_ff_layernorm = RMSNorm(size, eps), RMSNorm(size, eps)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.input_layernorm.join(x, residual)
        x, residual = self.pre_ff_layernorm.join(self.mixer(x), residual)
        return self.feed_forward(x), residual


class JambaForCausalLM(CausalLM):
    """Jamba v0.1, 1.5 and 1.6, Jamba Mini and Large."""

    weight_map = WeightMap(rename=[(r"\.(self_attn|mamba)\.", ".mixer."), (r"\bfinal_layernorm\.", "norm.")])

    def build_decoder(self, config: Any) -> Decoder:
        kinds = zip(config.layers_block_type, config.layers_num_experts)
        blocks = (JambaBlock(config, kind, num_experts) for kind, num_experts in kinds)
        return Decoder(config, None, blocks, RMSNorm(config.hidden_size, config.rms_norm_eps))

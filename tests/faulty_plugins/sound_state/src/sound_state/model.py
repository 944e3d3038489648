"""Gated convolutions in some layers and attention in others (LFM2); the convolution's state is the author's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import (
    Decoder,
    GatedMLP,
    MergedColumnParallelLinear,
    RMSNorm,
    RotaryEmbedding,
    RowParallelLinear,
    SelfAttention,
    StateLayer,
    StateSpec,
)


class GatedConvolution(StateLayer):
    """`out(C * conv(B * x))`: each channel of a token is a weighted sum of its own last values."""

    kind = "convolution"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.hidden, self.width = config.hidden_size, config.conv_L_cache
        self.in_proj = MergedColumnParallelLinear(self.hidden, [self.hidden] * 3, bias=False, parts=("B", "C", "x"))
        self.conv = nn.Module()
        self.conv.weight = nn.Parameter(torch.empty(self.hidden, 1, self.width), requires_grad=False)
        self.out_proj = RowParallelLinear(self.hidden, self.hidden, bias=False)

    def state_specs(self) -> Mapping[str, StateSpec]:
        return {"before": StateSpec((self.width - 1, self.hidden))}

    def forward(self, x: Tensor) -> Tensor:
        b, c, x = self.in_proj(x)
        return self.out_proj(c * self.recur(b * x))

    def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:
        seen = torch.cat((state["before"], x), dim=1)
        state["before"] = seen[:, x.shape[1] :]
        taps = self.conv.weight[:, 0].t()
        return sum(tap * seen[:, k : k + x.shape[1]] for k, tap in enumerate(taps))


class NormedAttention(SelfAttention):
    """Grouped-query attention with a norm over each head of q and k."""

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__(config, rotary)
        self.q_layernorm = RMSNorm(rotary.head_dim, config.norm_eps)
        self.k_layernorm = RMSNorm(rotary.head_dim, config.norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.o_proj(self.attn(self.q_layernorm(q), self.k_layernorm(k), v, positions))


class Block(nn.Module):
    """A convolution or attention, then an MLP, each behind a norm."""

    def __init__(self, config: Any, rotary: RotaryEmbedding, kind: str) -> None:
        super().__init__()
        self.attends = kind == "full_attention"
        if self.attends:
            self.self_attn = NormedAttention(config, rotary)
        else:
            self.conv = GatedConvolution(config)
        self.operator_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = GatedMLP(config.hidden_size, config.intermediate_size, "silu")
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.operator_norm.join(x, residual)
        x = self.self_attn(positions, x) if self.attends else self.conv(x)
        x, residual = self.ffn_norm.join(x, residual)
        return self.feed_forward(x), residual


class SoundStateForCausalLM(CausalLM):
    """The blocks, and a head over the vocabulary."""

    weight_map = WeightMap(
        rename=[
            (r"\bembedding_norm\.", "norm."),
            (r"\bself_attn\.out_proj\.", "self_attn.o_proj."),
            (r"\bfeed_forward\.w1\.", "feed_forward.gate_proj."),
            (r"\bfeed_forward\.w3\.", "feed_forward.up_proj."),
            (r"\bfeed_forward\.w2\.", "feed_forward.down_proj."),
        ]
    )

    def build_decoder(self, config: Any) -> Decoder:
        rotary = RotaryEmbedding(config)
        blocks = [Block(config, rotary, kind) for kind in config.layer_types]
        return Decoder(config, rotary, blocks, RMSNorm(config.hidden_size, config.norm_eps))

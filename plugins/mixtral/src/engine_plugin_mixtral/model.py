"""Mixtral (Jiang et al. 2024): Mistral's decoder, in which each token is computed by a few of many MLPs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import (
    Decoder,
    Experts,
    PreNormBlock,
    RMSNorm,
    RotaryEmbedding,
    SelfAttention,
    TopKRouter,
    sliding_windows,
)


class MixtralMLP(nn.Module):
    """A gate chooses each token's experts; their outputs are added, weighted: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate = TopKRouter(config.hidden_size, config.num_local_experts, config.num_experts_per_tok)
        self.experts = Experts(
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            parts=("w1", "w3", "w2"),
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x)
        return self.experts(x, weights, chosen)


class MixtralForCausalLM(CausalLM):
    """Mixtral 8x7B and 8x22B."""

    weight_map = WeightMap(rename=[(r"\.block_sparse_moe\.", ".mlp.")], drop=CausalLM.weight_map.drop)

    def build_decoder(self, config: Any) -> Decoder:
        rotary = RotaryEmbedding(config)

        def block(window: int | None) -> PreNormBlock:
            attention = SelfAttention(config, rotary, sliding_window=window)
            return PreNormBlock(attention, MixtralMLP(config), config.hidden_size, config.rms_norm_eps)

        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        return Decoder(config, rotary, map(block, sliding_windows(config)), norm)

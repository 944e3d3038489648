"""Phi-3 (Abdin et al. 2024) and Phi-4 mini: Llama's decoder with fused projections, and LongRoPE (Ding et al. 2024).

Its checkpoints store `qkv_proj` and `gate_up_proj` fused, in the order in which the SDK's layers fuse them.
"""

from __future__ import annotations

from typing import Any

from sdk import CausalLM
from sdk.layers import Decoder, GatedMLP, PreNormBlock, RMSNorm, RotaryEmbedding, SelfAttention, sliding_windows


class Phi3ForCausalLM(CausalLM):
    """Phi-3 mini and medium, Phi-3.5 mini, Phi-4 and Phi-4 mini."""

    def build_decoder(self, config: Any) -> Decoder:
        rotary = RotaryEmbedding(config, restarts=True)

        def block(window: int | None) -> PreNormBlock:
            attention = SelfAttention(config, rotary, sliding_window=window)
            mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
            return PreNormBlock(attention, mlp, config.hidden_size, config.rms_norm_eps)

        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        return Decoder(config, rotary, map(block, sliding_windows(config)), norm)

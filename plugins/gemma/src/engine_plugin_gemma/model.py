"""Gemma 2 (Gemma Team 2024): windows in every other layer, soft caps, and a norm on both sides of each branch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdk import CausalLM
from sdk.layers import Decoder, GatedMLP, RMSNorm, RotaryEmbedding, SelfAttention, sliding_windows


def gemma_norm(config: Any) -> RMSNorm:
    """An RMSNorm whose checkpoint stores its weight less one."""
    return RMSNorm(config.hidden_size, config.rms_norm_eps, offset=1.0)


class Gemma2Block(nn.Module):
    """Attention and MLP, each between two norms; takes and returns a branch's output and the residual stream, `(tokens,
    hidden)` each."""

    def __init__(self, config: Any, window: int | None, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.self_attn = SelfAttention(
            config,
            rotary,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            scale=config.query_pre_attn_scalar**-0.5,
            sliding_window=window,
            logit_softcap=config.attn_logit_softcapping,
        )
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_activation)
        self.input_layernorm = gemma_norm(config)
        self.post_attention_layernorm = gemma_norm(config)
        self.pre_feedforward_layernorm = gemma_norm(config)
        self.post_feedforward_layernorm = gemma_norm(config)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.input_layernorm.join(x, residual)
        x = self.post_attention_layernorm(self.self_attn(positions, x))
        x, residual = self.pre_feedforward_layernorm.join(x, residual)
        return self.post_feedforward_layernorm(self.mlp(x)), residual


class Gemma2ForCausalLM(CausalLM):
    """Gemma 2, and what shares its config."""

    def build_decoder(self, config: Any) -> Decoder:
        if config.use_bidirectional_attention:
            raise ValueError("use_bidirectional_attention makes an encoder of Gemma 2; this plugin runs the decoder")
        rotary = RotaryEmbedding(config)
        blocks = [Gemma2Block(config, window, rotary) for window in sliding_windows(config)]
        return Decoder(config, rotary, blocks, gemma_norm(config))

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        embeddings = super().get_input_embeddings(input_ids)
        # The factor is rounded to the embeddings' dtype first, as it was in training: 55.5, not 55.4256.
        return embeddings * torch.tensor(self.config.hidden_size**0.5, dtype=embeddings.dtype)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        logits, cap = super().compute_logits(hidden_states), self.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)

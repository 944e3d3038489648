"""The Llama decoder (Touvron et al. 2023) and those that differ from it in a line: Mistral, Ministral and Qwen2.

Pre-norm blocks of grouped-query attention with rotary positions and a gated MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sdk import CausalLM
from sdk.layers import Decoder, GatedMLP, PreNormBlock, RMSNorm, RotaryEmbedding, SelfAttention, sliding_windows


class Biases(NamedTuple):
    """Which linear layers have one."""

    qkv: bool = False
    output: bool = False
    mlp: bool = False


class LlamaDecoder(Decoder):
    """Llama's stack of blocks: positions `(tokens,)` and embeddings `(tokens, hidden)` → `(tokens, hidden)`.

    Args:
        config: The HF config.
        biases: Which linear layers have a bias.
        windows: For each layer how many positions it sees; `None`: all.
    """

    def __init__(self, config: Any, biases: Biases, windows: Sequence[int | None]) -> None:
        rotary = RotaryEmbedding(config)

        def block(window: int | None) -> PreNormBlock:
            attention = SelfAttention(
                config, rotary, qkv_bias=biases.qkv, output_bias=biases.output, sliding_window=window
            )
            mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, biases.mlp)
            return PreNormBlock(attention, mlp, config.hidden_size, config.rms_norm_eps)

        super().__init__(config, rotary, map(block, windows), RMSNorm(config.hidden_size, config.rms_norm_eps))


class LlamaForCausalLM(CausalLM):
    """Llama 1 to 3.x and what shares its config."""

    def build_decoder(self, config: Any) -> LlamaDecoder:
        biases = Biases(qkv=config.attention_bias, output=config.attention_bias, mlp=config.mlp_bias)
        return LlamaDecoder(config, biases, [None] * config.num_hidden_layers)


class MistralForCausalLM(CausalLM):
    """Mistral 7B (Jiang et al. 2023): a sliding window in every layer; Ministral 8B: in those that `layer_types` names."""

    def build_decoder(self, config: Any) -> LlamaDecoder:
        return LlamaDecoder(config, Biases(), sliding_windows(config))


class Qwen2ForCausalLM(CausalLM):
    """Qwen2 (Yang et al. 2024): biased queries, keys and values, and a sliding window in some layers."""

    def build_decoder(self, config: Any) -> LlamaDecoder:
        return LlamaDecoder(config, Biases(qkv=True), sliding_windows(config))

"""A small model of the usual layers, on which quantization schemes are proved: no plugin has to be installed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..causal_lm import CausalLM
from ..layers import Decoder, GatedMLP, PreNormBlock, RMSNorm, RotaryEmbedding, SelfAttention
from .tiny import save_tiny, tiny_tokenizer


class SchemeHostForCausalLM(CausalLM):
    """Two blocks of grouped-query attention with biases and a gated MLP, and a head of its own."""

    def build_decoder(self, config: Any) -> Decoder:
        rotary, width, eps = RotaryEmbedding(config), config.hidden_size, config.rms_norm_eps
        blocks = [
            PreNormBlock(
                SelfAttention(config, rotary, qkv_bias=True),
                GatedMLP(width, config.intermediate_size, config.hidden_act),
                width,
                eps,
            )
            for _ in range(config.num_hidden_layers)
        ]
        return Decoder(config, rotary, blocks, RMSNorm(width, eps))


def make(seed: int, folder: Path) -> None:
    """Its checkpoint, random."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(
        Qwen2ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, architecture=SchemeHostForCausalLM.__name__
    )

"""A small random checkpoint in HF layout, made offline: what the conformance kit compares with transformers."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def make(seed: int, folder: Path) -> None:
    """Write it: two layers of convolution and one of attention."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=144,
        num_hidden_layers=3,
        layer_types=["conv", "full_attention", "conv"],
        num_attention_heads=4,
        num_key_value_heads=2,
        block_auto_adjust_ff_dim=False,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(Lfm2ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, architecture="SoundStateForCausalLM")

"""A small random checkpoint in HF layout, made offline: what the conformance kit compares with transformers."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def make(seed: int, folder: Path) -> None:
    """Write it."""
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Ernie4_5Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        use_bias=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Ernie4_5ForCausalLM(config)
    save_tiny(model, folder, seed=seed, tokenizer=tokenizer, architecture="SoundForCausalLM")

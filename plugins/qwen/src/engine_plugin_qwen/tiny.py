"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def qwen3(seed: int, folder: Path) -> None:
    """Qwen3 with tied embeddings, and a window of 24 tokens in its last layer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        use_sliding_window=True,
        sliding_window=24,
        max_window_layers=2,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(Qwen3ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def phi3(seed: int, folder: Path) -> None:
    """Phi-3 with rotary positions in three quarters of a head, whose frequencies change beyond 80 tokens."""
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=48,
        max_position_embeddings=512,
        original_max_position_embeddings=80,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
            "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0],
        },
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(Phi3ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer


@also_spelled(renamed_block=lambda name: name.replace(".block_sparse_moe.", ".mlp."))
def mixtral(seed: int, folder: Path) -> None:
    """Mixtral with two of six experts for a token, and a window of 24 tokens."""
    from transformers import MixtralConfig, MixtralForCausalLM

    tokenizer = tiny_tokenizer()
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=6,
        num_experts_per_tok=2,
        sliding_window=24,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(MixtralForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

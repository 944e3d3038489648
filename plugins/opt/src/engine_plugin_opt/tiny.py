"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer


@also_spelled(bare_decoder=lambda name: name.removeprefix("model."))
def opt(seed: int, folder: Path) -> None:
    """OPT with norms before the branches, and an embedding narrower than the model."""
    from transformers import OPTConfig, OPTForCausalLM

    tokenizer = tiny_tokenizer()
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        word_embed_proj_dim=48,
        ffn_dim=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(OPTForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

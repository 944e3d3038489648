"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def jamba(seed: int, folder: Path) -> None:
    """Jamba with three layers of Mamba, whose steps are small and so remember, and one of attention; experts in two."""
    from transformers import JambaConfig, JambaForCausalLM

    tokenizer = tiny_tokenizer()
    config = JambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=4,
        attn_layer_period=4,
        attn_layer_offset=2,
        num_experts=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        mamba_d_state=8,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(JambaForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, means={"dt_proj.bias": -4.0})

"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def gemma2(seed: int, folder: Path) -> None:
    """Gemma 2 with a window of 24 tokens in every other layer, and caps so low that they are felt.

    Its head is not tied, though that of the published ones is: with random weights, a scaled embedding that is the head as
    well says the same few tokens again and again.
    """
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=4.0,
        final_logit_softcapping=6.0,
        sliding_window=24,
        tie_word_embeddings=False,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    save_tiny(Gemma2ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

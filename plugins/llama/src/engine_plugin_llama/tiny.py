"""Small random checkpoints of the four architectures, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdk.testing.tiny import save_tiny, tiny_tokenizer


def _shape(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }


def llama(seed: int, folder: Path) -> None:
    """Llama with grouped-query attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    save_tiny(LlamaForCausalLM(LlamaConfig(**_shape(len(tokenizer)))), folder, seed=seed, tokenizer=tokenizer)


def mistral(seed: int, folder: Path) -> None:
    """Mistral with a window of 24 tokens, which most prompts outgrow."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = tiny_tokenizer()
    config = MistralConfig(**_shape(len(tokenizer)), sliding_window=24)
    save_tiny(MistralForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)


def ministral(seed: int, folder: Path) -> None:
    """Ministral with a window of 24 tokens in two layers of three."""
    from transformers import MinistralConfig, MinistralForCausalLM

    tokenizer = tiny_tokenizer()
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    config = MinistralConfig(**_shape(len(tokenizer)), head_dim=16, sliding_window=24, layer_types=types)
    save_tiny(MinistralForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)


def qwen2(seed: int, folder: Path) -> None:
    """Qwen2 with tied embeddings, and a window of 24 tokens in its last layer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        **_shape(len(tokenizer)),
        use_sliding_window=True,
        sliding_window=24,
        max_window_layers=2,
        tie_word_embeddings=True,
    )
    save_tiny(Qwen2ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer)

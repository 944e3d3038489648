"""Small random checkpoints, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer

_REMEMBERS = {"dt_bias": -4.0, "dt_proj.bias": -4.0}
"""Small steps, as trained models have them: what was said long ago still counts."""
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}


@also_spelled(original=lambda name: name.replace("embeddings.weight", "embedding.weight"))
def mamba(seed: int, folder: Path) -> None:
    """Mamba with three layers."""
    from transformers import MambaConfig, MambaForCausalLM

    tokenizer = tiny_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=48, state_size=8, num_hidden_layers=3, **_SPECIAL)
    save_tiny(MambaForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, means=_REMEMBERS)


@also_spelled(original=lambda name: name.replace("embeddings.weight", "embedding.weight"))
def mamba2(seed: int, folder: Path) -> None:
    """Mamba-2 with three layers of six heads, which share two groups."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    tokenizer = tiny_tokenizer()
    config = Mamba2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_heads=6,
        head_dim=16,
        n_groups=2,
        state_size=24,
        num_hidden_layers=3,
        chunk_size=32,
        **_SPECIAL,
    )
    save_tiny(Mamba2ForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, means=_REMEMBERS)

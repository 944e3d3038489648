"""Mamba and Mamba-2 by themselves, against transformers' own implementations."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_plugin_mamba.plugin import engine_architectures
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

from sdk.testing.parity import assert_equals_hf
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "state_size": 8,
    "num_hidden_layers": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
HEADS = {"num_heads": 4, "head_dim": 16, "n_groups": 2}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"use_bias": True},
        {"use_conv_bias": False},
        {"conv_kernel": 3},
        {"time_step_rank": 5},
        {"expand": 3},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_mamba_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(MambaForCausalLM(MambaConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 3, 40)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"use_bias": True},
        {"use_conv_bias": False},
        {"conv_kernel": 2},
        {"n_groups": 1},
        {"n_groups": 4},
        {"num_heads": 2, "head_dim": 32},
        {"time_step_limit": [0.1, 0.6]},
        {"tie_word_embeddings": True},
        {"chunk_size": 16},
    ],
    ids=str,
)
def test_mamba2_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(Mamba2ForCausalLM(Mamba2Config(**{**SHAPE, **HEADS, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 3, 64, 150)

"""Jamba by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_plugin_jamba.plugin import engine_architectures
from transformers import JambaConfig, JambaForCausalLM

from sdk.testing.parity import assert_equals_hf
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_d_state": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"expert_layer_period": 3, "expert_layer_offset": 0},
        {"num_experts": 1},
        {"num_experts_per_tok": 1},
        {"num_key_value_heads": 4},
        {"attn_layer_period": 4, "attn_layer_offset": 0},
        {"mamba_proj_bias": True, "mamba_conv_bias": False},
        {"mamba_dt_rank": 5, "mamba_expand": 3, "mamba_d_conv": 3},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_jamba_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(JambaForCausalLM(JambaConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 3, 40)

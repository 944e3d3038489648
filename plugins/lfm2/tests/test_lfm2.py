"""LFM2 by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_plugin_lfm2.plugin import engine_architectures
from transformers import Lfm2Config, Lfm2ForCausalLM

from sdk.testing.parity import assert_equals_hf
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "full_attn_idxs": [1],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "block_multiple_of": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"conv_bias": True},
        {"conv_L_cache": 5},
        {"conv_L_cache": 2},
        {"full_attn_idxs": [0, 1, 2]},
        {"block_auto_adjust_ff_dim": False},
        {"block_ffn_dim_multiplier": 1.3},
        {"tie_word_embeddings": False},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    ids=str,
)
def test_lfm2_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(Lfm2ForCausalLM(Lfm2Config(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 2, 7, 40)

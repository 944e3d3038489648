"""Qwen3 by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_plugin_qwen.plugin import capabilities, engine_architectures
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdk import ConfigView
from sdk.testing.parity import assert_equals_hf
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "head_dim": 20,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"attention_bias": True},
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 0.1},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}},
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
        {"use_sliding_window": False, "sliding_window": 6, "max_window_layers": 0},
    ],
    ids=str,
)
def test_qwen3_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(Qwen3ForCausalLM(Qwen3Config(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 6, 7, 40)


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        ({"sliding_window": 8}, ("full",)),
        ({"use_sliding_window": True, "num_hidden_layers": 28}, ("full",)),
        ({"use_sliding_window": True, "num_hidden_layers": 40}, ("full", "sliding")),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"]}, ("sliding",)),
    ],
    ids=str,
)
def test_capabilities_tell_the_kinds_of_attention(config: dict[str, object], attention: tuple[str, ...]) -> None:
    assert capabilities(ConfigView(config)).attention == attention

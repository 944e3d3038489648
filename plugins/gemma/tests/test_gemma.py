"""Gemma 2 by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_gemma.plugin import capabilities, engine_architectures
from transformers import Gemma2Config, Gemma2ForCausalLM

from sdk import ConfigView
from sdk.testing.parity import assert_equals_hf, random_prompt
from sdk.testing.reference import load_hf, load_reference
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
    "sliding_window": 6,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 5.0,
    "query_pre_attn_scalar": 10,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sliding_window": 1},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 7},
        {"layer_types": ["full_attention", "full_attention"]},
        {"attn_logit_softcapping": None},
        {"final_logit_softcapping": None},
        {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.5},
        {"query_pre_attn_scalar": 256},
        {"attention_bias": True},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": False},
        {"hidden_activation": "silu"},
    ],
    ids=str,
)
def test_gemma2_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(Gemma2ForCausalLM(Gemma2Config(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 6, 7, 40)


def test_every_other_layer_has_a_window_where_the_config_does_not_say(tmp_path: Path) -> None:
    save_tiny(Gemma2ForCausalLM(Gemma2Config(**SHAPE)), tmp_path, seed=1)
    layers = load_reference(tmp_path, RECORDS).model.layers
    assert [layer.self_attn.attn.sliding_window for layer in layers] == [6, None]


def test_embeddings_are_scaled_by_a_factor_of_their_own_dtype(tmp_path: Path) -> None:
    save_tiny(Gemma2ForCausalLM(Gemma2Config(**SHAPE)), tmp_path, seed=1)
    ids = torch.tensor(random_prompt(SHAPE["vocab_size"], 9))
    ours = load_reference(tmp_path, RECORDS, dtype=torch.bfloat16).get_input_embeddings(ids)
    theirs = load_hf(tmp_path).bfloat16().get_input_embeddings()(ids)
    assert torch.equal(ours, theirs)


def test_the_encoder_that_some_make_of_it_is_refused(tmp_path: Path) -> None:
    config = Gemma2Config(**SHAPE, use_bidirectional_attention=True)
    save_tiny(Gemma2ForCausalLM(config), tmp_path, seed=1)
    with pytest.raises(ValueError, match="makes an encoder of Gemma 2"):
        load_reference(tmp_path, RECORDS)


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        ({}, ("full", "sliding")),
        ({"sliding_window": None}, ("full",)),
        ({"layer_types": ["sliding_attention"]}, ("sliding",)),
        ({"layer_types": ["full_attention"]}, ("full",)),
    ],
    ids=str,
)
def test_capabilities_tell_the_kinds_of_attention(config: dict[str, object], attention: tuple[str, ...]) -> None:
    assert capabilities(ConfigView(config)).attention == attention

"""OPT by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_opt.plugin import engine_architectures
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM

from sdk.testing.parity import assert_equals_hf
from sdk.testing.reference import load_reference
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"do_layer_norm_before": False},
        {"do_layer_norm_before": False, "word_embed_proj_dim": 20},
        {"word_embed_proj_dim": 20},
        {"word_embed_proj_dim": 60},
        {"enable_bias": False},
        {"layer_norm_elementwise_affine": False},
        {"enable_bias": False, "layer_norm_elementwise_affine": False, "do_layer_norm_before": False},
        {"_remove_final_layer_norm": True},
        {"activation_function": "gelu"},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_opt_equals_hf_up_to_its_last_position(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(OPTForCausalLM(OPTConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 40, SHAPE["max_position_embeddings"])


@pytest.mark.parametrize("prefix", ["", "model."])
def test_checkpoints_of_either_age_load_with_a_head_of_their_own_or_without(tmp_path: Path, prefix: str) -> None:
    save_tiny(OPTForCausalLM(OPTConfig(**SHAPE)), tmp_path, seed=1)
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in weights.items()}
    assert all(name.startswith(f"{prefix}decoder.") for name in renamed)
    expected = load_reference(tmp_path, RECORDS).state_dict()
    for head in ({}, {"lm_head.weight": renamed[f"{prefix}decoder.embed_tokens.weight"].clone()}):
        save_file({**renamed, **head}, tmp_path / "model.safetensors", {"format": "pt"})
        made = load_reference(tmp_path, RECORDS).state_dict()
        assert all(torch.equal(made[name], expected[name]) for name in expected)

"""Mixtral by itself, against transformers' own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_mixtral.plugin import capabilities, engine_architectures
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from sdk import ConfigView
from sdk.errors import MissingWeightsError, UnexpectedWeightsError, WeightsShapeError
from sdk.testing.parity import assert_equals_hf
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
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 5},
        {"num_local_experts": 2},
        {"num_key_value_heads": 1},
        {"head_dim": 20},
        {"sliding_window": 7},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
    ],
    ids=str,
)
def test_mixtral_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(MixtralForCausalLM(MixtralConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 7, 8, 40)


def stacked(folder: Path) -> dict[str, torch.Tensor]:
    """The checkpoint as transformers 5 holds it in memory: experts stacked, other names."""
    return {name: tensor.clone() for name, tensor in load_hf(folder).state_dict().items()}


def test_experts_load_one_by_one_and_stacked(tmp_path: Path) -> None:
    save_tiny(MixtralForCausalLM(MixtralConfig(**SHAPE)), tmp_path, seed=1)
    published, in_memory = load_file(tmp_path / "model.safetensors"), stacked(tmp_path)
    assert "model.layers.1.block_sparse_moe.experts.4.w2.weight" in published
    assert in_memory["model.layers.1.mlp.experts.gate_up_proj"].shape == (5, 160, 48)
    expected = load_reference(tmp_path, RECORDS).state_dict()
    save_file(in_memory, tmp_path / "model.safetensors", {"format": "pt"})
    made = load_reference(tmp_path, RECORDS).state_dict()
    assert expected.keys() == made.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_what_an_expert_lacks_or_has_in_the_wrong_shape_is_named(tmp_path: Path) -> None:
    save_tiny(MixtralForCausalLM(MixtralConfig(**SHAPE)), tmp_path, seed=1)
    whole = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.block_sparse_moe.experts.3.w3.weight"
    save_file({k: v for k, v in whole.items() if k != name}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingWeightsError, match=r"lacks 1 tensors.*model\.layers\.1\.mlp\.experts\.3\.w3\.weight"):
        load_reference(tmp_path, RECORDS)
    save_file({**whole, name: torch.ones(3, 48)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsShapeError, match=r"experts\.3\.w3\.weight' has shape \(3, 48\).*\(80, 48\)"):
        load_reference(tmp_path, RECORDS)
    extra = {name.replace("experts.3", "experts.5"): torch.ones(80, 48)}
    save_file({**whole, **extra}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnexpectedWeightsError, match=r"experts\.5\.w3\.weight"):
        load_reference(tmp_path, RECORDS)


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        ({}, ("full",)),
        ({"sliding_window": None}, ("full",)),
        ({"sliding_window": 8}, ("sliding",)),
    ],
    ids=str,
)
def test_capabilities_tell_the_kinds_of_attention(config: dict[str, object], attention: tuple[str, ...]) -> None:
    assert capabilities(ConfigView(config)).attention == attention

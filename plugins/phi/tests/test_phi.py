"""Phi-3 by itself, against transformers' own implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_plugin_phi.plugin import capabilities, engine_architectures
from safetensors.torch import load_file, save_file
from transformers import Phi3Config, Phi3ForCausalLM

from sdk import ConfigView
from sdk.testing.parity import assert_equals_hf
from sdk.testing.reference import load_reference
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
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 2.5, 6.0],
}
WHOLE = {"short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0]}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"sliding_window": 7},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
        {"rope_parameters": LONGROPE},
        {"rope_parameters": {**LONGROPE, "partial_rotary_factor": 1.0, **WHOLE}, "sliding_window": 7},
    ],
    ids=str,
)
def test_phi3_equals_hf_below_and_beyond_the_original_length(tmp_path: Path, change: dict[str, object]) -> None:
    config = Phi3Config(**{**SHAPE, **change}, original_max_position_embeddings=32)
    save_tiny(Phi3ForCausalLM(config), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 31, 32, 33, 60)


def test_the_older_spelling_of_longrope_loads(tmp_path: Path) -> None:
    config = Phi3Config(**SHAPE, rope_parameters=LONGROPE, original_max_position_embeddings=32)
    save_tiny(Phi3ForCausalLM(config), tmp_path, seed=1)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["rope_parameters"]
    factors = {key: LONGROPE[key] for key in ("short_factor", "long_factor")}
    values |= {"rope_theta": 500.0, "rope_scaling": {"type": "longrope", **factors}, "partial_rotary_factor": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_equals_hf(tmp_path, RECORDS, 32, 33)
    rotary = load_reference(tmp_path, RECORDS).model.rotary_emb
    assert (rotary.rope_type, rotary.rotary_dim, rotary.original_max) == ("longrope", 6, 32)


def test_projections_load_fused_as_published_and_in_parts(tmp_path: Path) -> None:
    save_tiny(Phi3ForCausalLM(Phi3Config(**SHAPE)), tmp_path, seed=1)
    fused = load_reference(tmp_path, RECORDS).state_dict()
    parts = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        if "qkv_proj" in name:
            split = dict(zip("qkv", tensor.split([48, 24, 24])))
            parts |= {name.replace("qkv_proj", f"{k}_proj"): v.contiguous() for k, v in split.items()}
        elif "gate_up_proj" in name:
            split = dict(zip(("gate", "up"), tensor.chunk(2)))
            parts |= {name.replace("gate_up_proj", f"{k}_proj"): v.contiguous() for k, v in split.items()}
        else:
            parts[name] = tensor
    assert len(parts) == len(load_file(tmp_path / "model.safetensors")) + 3 * SHAPE["num_hidden_layers"]
    save_file(parts, tmp_path / "model.safetensors", {"format": "pt"})
    in_parts = load_reference(tmp_path, RECORDS).state_dict()
    assert fused.keys() == in_parts.keys()
    assert all(torch.equal(fused[name], in_parts[name]) for name in fused)


@pytest.mark.parametrize(
    ("config", "attention", "prefix_caching"),
    [
        ({}, ("full",), True),
        ({"sliding_window": 8}, ("sliding",), True),
        ({"rope_scaling": None}, ("full",), True),
        ({"rope_scaling": {"type": "su"}}, ("full",), False),
        ({"rope_parameters": {"rope_type": "longrope"}}, ("full",), False),
        ({"rope_parameters": {"rope_type": "default"}}, ("full",), True),
    ],
    ids=str,
)
def test_capabilities_tell_the_kind_of_attention_and_whether_beginnings_are_shared(
    config: dict[str, object], attention: tuple[str, ...], prefix_caching: bool
) -> None:
    told = capabilities(ConfigView(config))
    assert (told.attention, told.prefix_caching) == (attention, prefix_caching)

"""The decoder by itself, against transformers' own: logits at every position."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PersimmonConfig, PersimmonForCausalLM

from sdk import Architecture
from sdk.errors import MissingWeightsError
from sdk.testing.parity import assert_equals_hf
from sdk.testing.reference import load_reference
from sdk.testing.tiny import save_tiny

Records = list[Architecture]
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def rope(part: float, rope_type: str = "default", **parameters: float) -> dict[str, object]:
    given = {"rope_type": rope_type, "rope_theta": 25000.0, "partial_rotary_factor": part, **parameters}
    return {"rope_parameters": given}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"qk_layernorm": False},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
        {"layer_norm_eps": 0.1},
        {"num_attention_heads": 1},
        rope(1.0),
        rope(0.34),
        rope(0.5, "linear", factor=2.0),
        rope(0.5, "dynamic", factor=2.0),
        rope(0.5, "yarn", factor=4.0, original_max_position_embeddings=16),
    ],
    ids=str,
)
def test_logits_equal_hf(tmp_path: Path, records: Records, change: dict[str, object]) -> None:
    save_tiny(PersimmonForCausalLM(PersimmonConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, records, 1, 40, 90)


def test_frequencies_that_old_checkpoints_store_are_dropped(tmp_path: Path, records: Records) -> None:
    save_tiny(PersimmonForCausalLM(PersimmonConfig(**SHAPE)), tmp_path, seed=1)
    weights = load_file(tmp_path / "model.safetensors")
    for i in range(2):
        weights[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    ours = load_reference(tmp_path, records)
    assert [name for name, _ in ours.named_buffers()] == ["model.rotary_emb.inv_freq"]


def test_a_checkpoint_without_the_norms_that_its_config_asks_for_is_refused(tmp_path: Path, records: Records) -> None:
    save_tiny(PersimmonForCausalLM(PersimmonConfig(**SHAPE, qk_layernorm=False)), tmp_path, seed=1)
    config = PersimmonConfig.from_pretrained(tmp_path)
    config.qk_layernorm = True
    config.save_pretrained(tmp_path)
    with pytest.raises(MissingWeightsError, match="q_layernorm"):
        load_reference(tmp_path, records)

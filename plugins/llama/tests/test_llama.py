"""The decoder by itself, against transformers' own implementations of the four architectures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_plugin_llama import tiny
from engine_plugin_llama.plugin import engine_architectures
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MinistralConfig,
    MinistralForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sdk import ConfigView
from sdk.errors import MissingWeightsError, UnexpectedWeightsError, WeightsShapeError
from sdk.testing.parity import assert_equals_hf, random_prompt
from sdk.testing.reference import assert_close, load_hf, load_reference, load_target, reference_logits
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
}
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0]}
ROPE = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 32, **FACTORS},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 20},
        {"hidden_act": "gelu"},
        {"rms_norm_eps": 0.1},
    ],
    ids=str,
)
def test_llama_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(LlamaForCausalLM(LlamaConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 40)


@pytest.mark.parametrize("window", [None, 1, 7, 200])
def test_mistral_equals_hf_with_a_window_shorter_and_longer_than_the_prompt(tmp_path: Path, window: int | None) -> None:
    save_tiny(MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=window)), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 7, 8, 40)


@pytest.mark.parametrize(
    ("types", "window"),
    [
        (["full_attention", "sliding_attention"], 6),
        (["sliding_attention", "full_attention"], 6),
        (["sliding_attention", "sliding_attention"], 6),
        (None, 6),
    ],
    ids=str,
)
@pytest.mark.parametrize("published", [False, True], ids=["ministral", "called mistral"])
def test_ministral_equals_hf_under_its_own_name_and_as_published(
    tmp_path: Path, types: list[str] | None, window: int | None, published: bool
) -> None:
    config = MinistralConfig(**SHAPE, head_dim=20, sliding_window=window, layer_types=types)
    save_tiny(MinistralForCausalLM(config), tmp_path, seed=1)
    theirs = load_hf(tmp_path)
    if published:
        values = json.loads((tmp_path / "config.json").read_text())
        values |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
        (tmp_path / "config.json").write_text(json.dumps(values))
    ours = load_reference(tmp_path, RECORDS)
    for length in (1, 6, 7, 40):
        ids = random_prompt(SHAPE["vocab_size"], length)
        with torch.inference_mode():
            assert_close(reference_logits(ours, ids), theirs(torch.tensor([ids])).logits[0])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tie_word_embeddings": True},
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ],
    ids=str,
)
def test_qwen2_equals_hf(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, **change})), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 1, 40)


@pytest.mark.parametrize("rope_type", ROPE)
def test_every_rope_type_equals_hf_below_and_beyond_the_trained_length(tmp_path: Path, rope_type: str) -> None:
    parameters = {"rope_type": rope_type, "rope_theta": 500.0, **ROPE[rope_type]}
    config = LlamaConfig(**SHAPE, rope_parameters=parameters)
    save_tiny(LlamaForCausalLM(config), tmp_path, seed=1)
    assert_equals_hf(tmp_path, RECORDS, 20, 120, 150)


def test_the_older_spelling_of_rope_parameters_loads(tmp_path: Path) -> None:
    save_tiny(LlamaForCausalLM(LlamaConfig(**SHAPE)), tmp_path, seed=1)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_equals_hf(tmp_path, RECORDS, 40)
    assert load_reference(tmp_path, RECORDS).model.rotary_emb.rope["rope_theta"] == 500.0


def rewrite_weights(folder: Path, change: object) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", {"format": "pt"})


def test_rotary_frequencies_of_old_checkpoints_are_dropped(tmp_path: Path) -> None:
    save_tiny(LlamaForCausalLM(LlamaConfig(**SHAPE)), tmp_path, seed=1)
    rewrite_weights(tmp_path, lambda w: {**w, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)})
    assert_equals_hf(tmp_path, RECORDS, 20)


def test_a_tensor_too_few_or_too_many_or_of_another_shape_is_named(tmp_path: Path) -> None:
    save_tiny(LlamaForCausalLM(LlamaConfig(**SHAPE)), tmp_path, seed=1)
    whole = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"

    rewrite_weights(tmp_path, lambda w: {k: v for k, v in w.items() if k != name})
    with pytest.raises(MissingWeightsError, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
        load_reference(tmp_path, RECORDS)
    rewrite_weights(tmp_path, lambda w: {**whole, "model.layers.0.self_attn.q_norm.weight": torch.ones(4)})
    with pytest.raises(UnexpectedWeightsError, match=r"self_attn\.q_norm\.weight"):
        load_reference(tmp_path, RECORDS)
    rewrite_weights(tmp_path, lambda w: {**whole, name: torch.ones(3, 3)})
    with pytest.raises(WeightsShapeError, match=r"down_proj\.weight' has shape \(3, 3\)"):
        load_reference(tmp_path, RECORDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_the_tiny_checkpoint_equals_hf_and_says_varied_things(tmp_path: Path, record: object) -> None:
    load_target(record.tiny)(0, tmp_path)
    assert_equals_hf(tmp_path, RECORDS, 60)
    out = load_hf(tmp_path).generate(
        torch.tensor([random_prompt(SHAPE["vocab_size"], 9)]), max_new_tokens=24, do_sample=False
    )[0, 9:]
    assert len(set(out.tolist())) > 6


def test_tiny_checkpoints_are_the_same_for_a_seed_and_differ_between_seeds(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.llama(seed, tmp_path / name)
    files = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    assert files["model.safetensors"] != (tmp_path / "c" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("architecture", "config", "attention"),
    [
        ("LlamaForCausalLM", {"sliding_window": 8}, ("full",)),
        ("MistralForCausalLM", {"sliding_window": 8}, ("sliding",)),
        ("MistralForCausalLM", {"sliding_window": None}, ("full",)),
        ("MistralForCausalLM", {}, ("sliding",)),
        ("MistralForCausalLM", {"layer_types": ["full_attention", "sliding_attention"]}, ("full", "sliding")),
        ("MinistralForCausalLM", {"layer_types": ["full_attention"]}, ("full",)),
        ("Qwen2ForCausalLM", {"sliding_window": 8}, ("full",)),
        ("Qwen2ForCausalLM", {"use_sliding_window": True, "num_hidden_layers": 28}, ("full",)),
        ("Qwen2ForCausalLM", {"use_sliding_window": True, "num_hidden_layers": 40}, ("full", "sliding")),
        ("Qwen2ForCausalLM", {"use_sliding_window": True, "layer_types": ["sliding_attention"]}, ("sliding",)),
    ],
)
def test_capabilities_tell_the_kinds_of_attention(
    architecture: str, config: dict[str, object], attention: tuple[str, ...]
) -> None:
    record = next(r for r in RECORDS if r.name == architecture)
    assert load_target(record.capabilities)(ConfigView(config)).attention == attention


def test_the_plugin_module_loads_no_torch() -> None:
    code = (
        "import sys, engine_plugin_llama.plugin as p; from sdk import ConfigView\n"
        "p.engine_architectures(); p.qwen2_capabilities(ConfigView({}))\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

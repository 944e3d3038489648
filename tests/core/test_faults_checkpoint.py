"""Checkpoints that are damaged, incomplete or absurd are refused by name, before anything is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import LLM
from core.errors import (
    CorruptWeightsError,
    EngineError,
    InvalidConfigError,
    MissingWeightsError,
    ModelNotFoundError,
    PluginMissingError,
    UnexpectedWeightsError,
    WeightsError,
    WeightsShapeError,
)

Weights = dict[str, torch.Tensor]


@pytest.fixture
def copy(llama_folder: Path, tmp_path: Path) -> Path:
    for file in llama_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(folder: Path, edit: Callable[[Weights], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def fails(folder: Path, kind: type[EngineError], *says: str, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        LLM(str(folder), dtype="float32", **options)
    for text in says:
        assert text in str(caught.value)


Q = "model.layers.0.self_attn.q_proj.weight"


def test_R059_missing_tensors_are_listed(copy: Path) -> None:
    change(copy, lambda w: (w.pop(Q), w.pop("model.norm.weight")))
    fails(copy, MissingWeightsError, "q_proj", "model.norm.weight")


def test_R059_leftover_tensors_are_listed_with_the_nearest_name_unless_allowed(copy: Path) -> None:
    change(copy, lambda w: w.update({"model.layers.0.mlp.gait_proj.weight": torch.zeros(1)}))
    fails(copy, UnexpectedWeightsError, "gait_proj", "gate_proj", "strict_weights=False")
    LLM(str(copy), dtype="float32", strict_weights=False).close()


def test_R059_a_wrong_shape_names_both_shapes(copy: Path) -> None:
    change(copy, lambda w: w.update({Q: torch.zeros(3, 5)}))
    fails(copy, WeightsShapeError, Q, "(3, 5)")


def test_R060_a_tensor_in_two_files_is_an_error(copy: Path) -> None:
    save_file({"model.norm.weight": torch.ones(64)}, copy / "model-2.safetensors", {"format": "pt"})
    fails(copy, CorruptWeightsError, "model.norm.weight", "both in")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b[:-100], "truncated"),
        (lambda b: b"", "empty or truncated"),
        (lambda b: b + b"\0" * 8, "longer than its header says"),
        (lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (lambda b: b"\xff" * 8 + b[8:], "truncated or no safetensors"),
        (lambda b: b[:8] + b"x" * 40 + b[48:], "unreadable header"),
    ],
    ids=["truncated", "empty", "trailing", "lfs pointer", "header length lies", "header is no json"],
)
def test_R061_damaged_files_are_named(copy: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    fails(copy, CorruptWeightsError, "model.safetensors", says)


def test_R061_a_shard_that_the_index_names_and_the_folder_lacks(copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    fails(copy, CorruptWeightsError, "gone.safetensors")


def test_R062_numbers_that_are_none_are_found_when_asked_for(copy: Path) -> None:
    change(copy, lambda w: w[Q].view(-1)[:1].fill_(float("nan")))
    LLM(str(copy), dtype="float32").close()
    fails(copy, CorruptWeightsError, Q, "NaN", check_weights=True)


def test_R064_pickles_are_refused_with_the_reason(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    fails(copy, WeightsError, "no *.safetensors")
    (copy / "pytorch_model.bin").write_bytes(b"x")
    fails(copy, WeightsError, "pytorch_model.bin", "runs code")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 0),
        ("vocab_size", 10**9),
        ("hidden_size", -5),
        ("num_hidden_layers", "two"),
        ("head_dim", 2.5),
    ],
)
def test_R065_absurd_sizes_name_the_field(copy: Path, key: str, value: Any) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, key: value}))
    fails(copy, InvalidConfigError, key)


def test_R065_configs_that_are_none(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "architectures"}))
    fails(copy, InvalidConfigError, "architectures")
    (copy / "config.json").write_text("{")
    fails(copy, InvalidConfigError, "config.json")
    (copy / "config.json").unlink()
    fails(copy, ModelNotFoundError, "config.json")


def test_R065_no_code_of_a_checkpoint_runs(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "evil.py").write_text("raise SystemExit('code of the checkpoint ran')")
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    LLM(str(copy), dtype="float32").close()


def test_a_model_that_is_nowhere(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", ModelNotFoundError, "nowhere")
    with pytest.raises(ModelNotFoundError, match="demo/llava"):
        LLM("demo/lava")


def test_an_architecture_that_nobody_runs_names_the_package(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"NotYetForCausalLM": "engine-plugin-notyet"}
    monkeypatch.setattr("core.plugins.missing.known_plugins", lambda: known)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": list(known)}))
    fails(copy, PluginMissingError, "NotYetForCausalLM", "pip install engine-plugin-notyet")


def test_hf_overrides_take_the_place_of_values(copy: Path) -> None:
    fails(copy, InvalidConfigError, "vocab_size", hf_overrides={"vocab_size": 0})
    with LLM(str(copy), dtype="float32", hf_overrides={"max_position_embeddings": 77}) as llm:
        assert llm.plan.max_model_len == 77


def test_a_component_is_no_model(tmp_path: Path) -> None:
    from engine_plugin_towers import tiny

    make = next(
        f
        for n, f in vars(tiny).items()
        if callable(f) and getattr(f, "__module__", "") == tiny.__name__ and "clip" in n
    )
    make(0, tmp_path)
    fails(tmp_path, InvalidConfigError, "component")

"""Tiny checkpoints, quantized ones made of them, and transformers with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from engine_plugin_mixtral import tiny as mixtral_tiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import LLM
from core.runtime import OpenModel
from sdk.testing.reference import load_hf

OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "kv_cache_bytes": 2**20, "disable_progress": True}
W8: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
A8: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
IDS = list(range(10, 60))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _made(make: Callable[[int, Path], None], name: str) -> Any:
    @pytest.fixture(scope="session", name=name)
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        made = tmp_path_factory.mktemp(name)
        make(0, made)
        return made

    return folder


llama_folder = _made(llama_tiny.llama, "llama_folder")
tied_folder = _made(llama_tiny.qwen2, "tied_folder")
mixtral_folder = _made(mixtral_tiny.mixtral, "mixtral_folder")
llava_folder = _made(llava_tiny.llava, "llava_folder")


def quantization_config(*, inputs: bool, ignore: Sequence[str] = ("lm_head",), **group: Any) -> dict[str, Any]:
    """What a compressed-tensors checkpoint has in its config.json."""
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": W8, "input_activations": A8 if inputs else None, **group}
        },
    }


def integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight in 8 bits and the scale of each output: what quantization tools write."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def write_quantized(source: Path, target: Path, chosen: Callable[[str], bool], config: Mapping[str, Any]) -> Path:
    """A copy of a checkpoint whose chosen modules have integers and scales."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (target / file.name).write_bytes(file.read_bytes())
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and chosen(module):
            tensors[name], tensors[f"{module}.weight_scale"] = integers(tensor)
        else:
            tensors[name] = tensor
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((source / "config.json").read_text()) | {"quantization_config": dict(config)}
    (target / "config.json").write_text(json.dumps(written))
    return target


def oracle(folder: Path, chosen: Callable[[str], bool], *, inputs: bool = False) -> Any:
    """transformers in float32, the chosen modules with weights rounded to 8 bits and back; inputs too, but the head's."""
    model = load_hf(folder)

    def rounded(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = given
        step = x.abs().amax(dim=-1, keepdim=True) / 127
        return ((x / step).round() * step,)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and chosen(name):
            quantized, scale = integers(module.weight.data)
            module.weight.data = quantized * scale
            if inputs and name != "lm_head":
                module.register_forward_pre_hook(rounded)
    return model


def logits(llm: LLM, ids: Sequence[int] = IDS) -> Tensor:
    """Of every place of a prompt."""
    return OpenModel(llm).logits([{"prompt_token_ids": list(ids)}])[0]


def hf_logits(model: Any, ids: Sequence[int] = IDS) -> Tensor:
    """The same by transformers."""
    with torch.inference_mode():
        found: Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0]
    return found


def error(ours: Tensor, theirs: Tensor) -> float:
    """Root of the mean squared difference, as a share of the logits' own spread."""
    return float((ours - theirs).pow(2).mean().sqrt() / theirs.std())

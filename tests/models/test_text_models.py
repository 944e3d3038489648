"""Every text model through the engine: greedy tokens are transformers' own, however prompts are cut and whatever the names
of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_gemma.tiny import gemma2
from engine_plugin_llama.tiny import llama, ministral, mistral, qwen2
from engine_plugin_mixtral.tiny import mixtral
from engine_plugin_opt.tiny import opt
from engine_plugin_phi.tiny import phi3
from engine_plugin_qwen.tiny import qwen3
from safetensors.torch import save_file

from core import LLM, SamplingParams
from sdk.testing.reference import load_hf

TINY = (llama, mistral, ministral, qwen2, qwen3, gemma2, phi3, opt, mixtral)
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
# Below, at and above a page, the windows of the tiny checkpoints (24 and 48) and the length at which Phi-3 switches (80).
LENGTHS = (3, 16, 24, 25, 49, 81, 150)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def prompts() -> list[list[int]]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randint(8, 300, (n,), generator=draws).tolist() for n in LENGTHS]


def greedy_of_hf(model: Any, prompt: list[int]) -> list[int]:
    model.generation_config.eos_token_id = None
    with torch.inference_mode():
        out = model.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False, pad_token_id=3)
    return [int(token) for token in out[0, len(prompt) :]]


def assert_says_what_hf_says(folder: Path, model: Any, **options: Any) -> None:
    with LLM(str(folder), dtype="float32", block_size=16, **options) as llm:
        made = [list(o.outputs[0].token_ids) for o in llm.generate(prompts(), GREEDY)]
    for ours, prompt in zip(made, prompts()):
        assert ours == greedy_of_hf(model, prompt), f"after a prompt of {len(prompt)} tokens"


@pytest.mark.parametrize("budget", [2048, 20], ids=["whole prompts", "prompts in chunks"])
@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.__name__)
def test_greedy_tokens_are_those_of_transformers(
    tmp_path: Path, tiny: Callable[[int, Path], None], budget: int
) -> None:
    tiny(0, tmp_path)
    assert_says_what_hf_says(tmp_path, load_hf(tmp_path), max_num_batched_tokens=budget)


def test_ministral_runs_under_the_name_that_its_publishers_gave_it(tmp_path: Path) -> None:
    ministral(0, tmp_path)
    theirs = load_hf(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert_says_what_hf_says(tmp_path, theirs)


def test_mixtral_runs_from_stacked_experts(tmp_path: Path) -> None:
    mixtral(0, tmp_path)
    theirs = load_hf(tmp_path)
    stacked = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in stacked
    save_file(stacked, tmp_path / "model.safetensors", {"format": "pt"})
    assert_says_what_hf_says(tmp_path, theirs)


def test_an_opt_whose_norms_come_after_the_branches_runs(tmp_path: Path) -> None:
    """As opt-350m has it."""
    opt(0, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "do_layer_norm_before": False}))
    weights = load_hf(tmp_path).state_dict()
    save_file({k: v.clone() for k, v in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    assert_says_what_hf_says(tmp_path, load_hf(tmp_path))

"""Whole engines on a GPU, against the same on the CPU; and what a step may not do there: wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_jamba import tiny as jamba_tiny
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from engine_plugin_mamba import tiny as mamba_tiny
from engine_plugin_whisper import tiny as whisper_tiny
from PIL import Image

from core import LLM, SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")]

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
DRAWN = SamplingParams(
    temperature=0.9, top_k=20, top_p=0.9, seed=5, max_tokens=24, ignore_eos=True, repetition_penalty=1.2
)


def tokens() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [{"prompt_token_ids": generator.integers(5, 100, n).tolist()} for n in (3, 150, 1, 40)]


def text(folder: Path) -> list[dict[str, Any]]:
    llama_tiny.llama(0, folder)
    return tokens()


def hybrid(folder: Path) -> list[dict[str, Any]]:
    jamba_tiny.jamba(0, folder)
    return tokens()


def states(folder: Path) -> list[dict[str, Any]]:
    mamba_tiny.mamba2(0, folder)
    return tokens()


def pictures(folder: Path) -> list[dict[str, Any]]:
    llava_tiny.llava(0, folder)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    return [{"prompt": "<image> what is it", "multi_modal_data": {"image": picture}}, {"prompt": "hello"}]


def clips(folder: Path) -> list[dict[str, Any]]:
    whisper_tiny.whisper(0, folder)
    noise = np.random.default_rng(2).standard_normal(16_000).astype(np.float32) / 10
    return [{"prompt_token_ids": [301, 302, 307, 311], "multi_modal_data": {"audio": noise}}] * 2


@pytest.mark.parametrize("made", [text, hybrid, states, pictures, clips])
@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_gpu_says_what_a_cpu_says(made: Any, params: SamplingParams, tmp_path: Path) -> None:
    prompts, found = made(tmp_path), {}
    for device in ("cpu", "cuda"):
        with LLM(str(tmp_path), device=device, dtype="float32", block_size=16, max_num_batched_tokens=64) as llm:
            found[device] = [o.outputs[0].token_ids for o in llm.generate(prompts, params)]
            assert next(llm.engine.model.parameters()).device.type == device
            assert llm.engine.plan.memory.measured is (device == "cuda")
    assert found["cuda"] == found["cpu"]


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[LLM]:
    llama_tiny.llama(0, tmp_path)
    with LLM(str(tmp_path), device="cuda", block_size=16) as llm:
        yield llm


def test_a_step_does_not_wait_for_the_device(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out, running and computing logits: the tokens are waited for afterwards, once."""
    run = llama.engine.runner.run

    def strict(*args: Any, **kwargs: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    llama.generate({"prompt_token_ids": [5] * 40}, GREEDY)  # kernels are compiled, and tables made, at their first use
    monkeypatch.setattr(llama.engine.runner, "run", strict)
    llama.generate([{"prompt_token_ids": [5, 6, 7]}, {"prompt_token_ids": [5] * 40}], GREEDY)


def test_what_a_step_reads_stays_in_one_place(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    places, build = set(), llama.engine.runner.builder.build

    def watched(plan: Any) -> Any:
        step = build(plan)
        places.add(
            tuple(x.data_ptr() for x in (step.input_ids, step.positions, step.cache_slots, step.lengths, step.pages))
        )
        return step

    monkeypatch.setattr(llama.engine.runner.builder, "build", watched)
    llama.generate([{"prompt_token_ids": [5, 6, 7]}, {"prompt_token_ids": [5] * 40}], GREEDY)
    assert len(places) == 1

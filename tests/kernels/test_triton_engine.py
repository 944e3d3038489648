"""Whole engines on Triton's kernels: in the interpreter on a CPU, where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_jamba import tiny as jamba_tiny
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from engine_plugin_whisper import tiny as whisper_tiny
from PIL import Image

from core import LLM, SamplingParams
from core.kernels.choice import SWITCH

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs engines on the GPU that is here")

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
DRAWN = SamplingParams(
    temperature=0.9, top_k=20, top_p=0.9, seed=5, max_tokens=6, ignore_eos=True, repetition_penalty=1.2
)


def answers(
    folder: Path,
    kernels: str,
    monkeypatch: pytest.MonkeyPatch,
    prompts: Sequence[Any],
    params: Sequence[SamplingParams],
) -> list[list[int]]:
    """What an engine on these kernels says, all prompts in one batch, in chunks."""
    monkeypatch.setenv(SWITCH, kernels)
    with LLM(str(folder), device="cpu", dtype="float32", block_size=8, max_num_batched_tokens=24) as llm:
        kinds = {
            type(m.kernel).__module__.split(".")[2] for m in llm.engine.model.modules() if getattr(m, "kernel", None)
        }
        assert ("triton" in kinds) is (kernels == "triton")
        outputs = llm.generate(list(prompts), list(params))
        return [list(o.outputs[0].token_ids) for o in outputs]


def same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, prompts: Sequence[Any], params: Sequence[SamplingParams]
) -> None:
    """Triton's tokens are plain torch's."""
    ours, expected = (answers(folder, kernels, monkeypatch, prompts, params) for kernels in ("triton", "torch"))
    assert ours == expected


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama_tiny.llama(0, tmp_path)
    generator = np.random.default_rng(0)
    prompts = [{"prompt_token_ids": generator.integers(5, 100, n).tolist()} for n in (3, 40, 1)]
    same(tmp_path, monkeypatch, prompts, [GREEDY, DRAWN, DRAWN])


def test_states_and_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jamba_tiny.jamba(0, tmp_path)
    generator = np.random.default_rng(0)
    prompts = [{"prompt_token_ids": generator.integers(5, 100, n).tolist()} for n in (3, 30, 1)]
    same(tmp_path, monkeypatch, prompts, [GREEDY] * 3)


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llava_tiny.llava(0, tmp_path)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    prompts = [{"prompt": "<image> what is it", "multi_modal_data": {"image": picture}}, {"prompt": "hello"}]
    same(tmp_path, monkeypatch, prompts, [GREEDY, GREEDY])


def test_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder states, and attention over them."""
    whisper_tiny.whisper(0, tmp_path)
    noise = np.random.default_rng(2).standard_normal(4_000).astype(np.float32) / 10
    prompts = [{"prompt_token_ids": [301, 302, 307, 311], "multi_modal_data": {"audio": noise}}]
    same(tmp_path, monkeypatch, prompts, [GREEDY])

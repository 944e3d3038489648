"""In float32 a sequence's tokens depend on nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import LLM, SamplingParams
from core.sampler import sample, uniform

from .conftest import GREEDY, picture, prompt_ids, tokens
from .gate import Shared

NEEDLES: list[Any] = [
    {"prompt_token_ids": prompt_ids(100, 37)},
    {"prompt": "one <image> two <image> three", "multi_modal_data": {"image": [picture(1), picture(2)]}},
]
OTHERS: list[Any] = [
    {"prompt": f"say {i} <image>", "multi_modal_data": {"image": picture(i)}}
    if i % 4 == 0
    else prompt_ids(i, 1 + 5 * i)
    for i in range(32)
]


@pytest.fixture(scope="module")
def alone(shared_llava: Shared[LLM]) -> list[list[int]]:
    return [tokens(shared_llava.get(), [needle])[0] for needle in NEEDLES]


def test_in_a_batch_of_thirty_two_others(llava: LLM, alone: list[list[int]]) -> None:
    together = tokens(llava, [*OTHERS[:16], *NEEDLES, *OTHERS[16:]])
    assert together[16:18] == alone


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_with_any_chunk_size(llava_folder: Path, alone: list[list[int]], chunk: int) -> None:
    with LLM(str(llava_folder), dtype="float32", max_num_batched_tokens=chunk) as llm:
        assert tokens(llm, NEEDLES) == alone


@pytest.mark.parametrize("block_size", [1, 3, 64])
def test_with_any_page_size(llava_folder: Path, alone: list[list[int]], block_size: int) -> None:
    with LLM(str(llava_folder), dtype="float32", block_size=block_size) as llm:
        assert tokens(llm, NEEDLES) == alone


def test_R080_when_sequences_lose_their_pages(llava_folder: Path, alone: list[list[int]], llava: LLM) -> None:
    page = llava.plan.bytes_per_token * 8
    with LLM(str(llava_folder), dtype="float32", block_size=8, kv_cache_bytes=page * 40, max_model_len=320) as llm:
        crowd = [*NEEDLES, *(prompt_ids(i, 20) for i in range(6))]
        assert tokens(llm, crowd)[:2] == alone
        assert llm.engine.scheduler.num_preemptions > 0
        assert llm.engine.pool.num_free == llm.engine.pool.num_pages


def test_with_plain_torch_in_the_place_of_compiled_kernels(
    llava_folder: Path, alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KERNELS", "torch")
    with LLM(str(llava_folder), dtype="float32") as llm:
        assert tokens(llm, NEEDLES) == alone


def test_a_seed_draws_the_same_whatever_shares_the_batch(llava: LLM) -> None:
    drawn = SamplingParams(temperature=1.0, top_p=0.95, seed=7, max_tokens=32, ignore_eos=True)
    alone = tokens(llava, [NEEDLES[0]], drawn)[0]
    crowd = [SamplingParams(temperature=1.3, max_tokens=32, ignore_eos=True)] * 16
    assert tokens(llava, [*OTHERS[:16], NEEDLES[0]], [*crowd, drawn])[16] == alone
    other = SamplingParams(temperature=1.0, top_p=0.95, seed=8, max_tokens=32, ignore_eos=True)
    assert tokens(llava, [NEEDLES[0]], other)[0] != alone


def test_an_engines_seed_repeats_what_brings_no_seed(llama_folder: Path) -> None:
    hot = SamplingParams(temperature=1.0, max_tokens=16, ignore_eos=True)
    runs = []
    for seed in (1, 1, 2):
        with LLM(str(llama_folder), dtype="float32", seed=seed) as llm:
            runs.append(tokens(llm, [prompt_ids(0, 8)] * 2, hot))
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][1]


class Row:
    """What the sampler reads of a request."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.params, self.seed, self.output_len = params, seed, 0


def frequencies(params: SamplingParams, logits: list[float], draws: int = 4000) -> np.ndarray[Any, Any]:
    rows: list[Any] = [Row(params, seed * 0x9E3779B97F4A7C15 % 2**64) for seed in range(draws)]
    drawn = sample(torch.tensor([logits] * draws), rows).tokens
    return np.bincount(drawn, minlength=len(logits)) / draws


def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(x - x.max())
    return e / e.sum()


LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -30.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    found = frequencies(SamplingParams(temperature=temperature), LOGITS)
    np.testing.assert_allclose(found, softmax(np.array(LOGITS) / temperature), atol=0.03)


def test_top_k_and_top_p_leave_out_what_they_say() -> None:
    full = softmax(np.array(LOGITS))
    top2 = np.where(np.arange(6) < 2, full, 0)
    np.testing.assert_allclose(frequencies(SamplingParams(top_k=2), LOGITS), top2 / top2.sum(), atol=0.03)
    assert full[0] < 0.7 < full[:2].sum()
    np.testing.assert_allclose(frequencies(SamplingParams(top_p=0.7), LOGITS), top2 / top2.sum(), atol=0.03)
    assert frequencies(SamplingParams(top_p=1e-9), LOGITS)[0] == 1.0


@pytest.mark.parametrize("temperature", [1e-9, 1e9])
def test_R015_extreme_temperatures_give_a_token(temperature: float) -> None:
    found = frequencies(SamplingParams(temperature=temperature), LOGITS, 64)
    assert found.sum() == 1.0
    assert temperature > 1 or found[0] == 1.0


def test_uniform_numbers_are_uniform() -> None:
    u = uniform(np.arange(20000, dtype=np.uint64), np.zeros(20000, dtype=np.uint64))
    assert 0 <= u.min() < u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0], 2000, atol=200)


def test_greedy_is_the_default_of_a_config_that_does_not_sample(llama: LLM) -> None:
    assert llama.default_sampling_params() == SamplingParams(temperature=0.0, max_tokens=None)
    assert GREEDY.greedy

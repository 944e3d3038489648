"""Every pair of features together gives what each request gives alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import LLM, SamplingParams

from .conftest import picture, prompt_ids
from .gate import Shared

TEXT: Any = prompt_ids(100, 37)
PICTURES: Any = {"prompt": "one <image> two <image> three", "multi_modal_data": {"image": [picture(1), picture(2)]}}
BASE: dict[str, Any] = {"temperature": 0.9, "seed": 11, "max_tokens": 20, "ignore_eos": True}
FEATURES: dict[str, dict[str, Any]] = {
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.7, "frequency_penalty": 0.4},
    "logprobs": {"logprobs": 3},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "n": {"n": 3},
    "stop": {"stop": ["e", "th"], "stop_token_ids": [77], "min_tokens": 3},
    "grammar": {"structured_outputs": {"regex": r"[a-z ]{12,40}"}, "ignore_eos": False},
    "min_p": {"min_p": 0.05, "top_p": 0.95, "top_k": 200},
    "masks": {"bad_words": ["the", "dog"], "logit_bias": {60: 3.0, 61: -100.0}},
    "custom": {"logits_processors": [lambda output, logits: logits * 1.1]},
    "greedy": {"temperature": 0.0},
    "pictures": {},
}
PAIRS = list(itertools.combinations(FEATURES, 2))


def wish(*features: str) -> tuple[Any, SamplingParams]:
    """A prompt and parameters that have these features."""
    params = dict(BASE)
    for feature in features:
        params |= FEATURES[feature]
    return (PICTURES if "pictures" in features else TEXT), SamplingParams(**params)


def told(output: Any) -> list[Any]:
    """What an output says, but for the last digits of its numbers."""
    assert output.error is None
    rows = []
    for c in output.outputs:
        steps = [sorted(step) for step in c.logprobs] if c.logprobs is not None else None
        rows.append((list(c.token_ids), c.text, c.finish_reason, c.stop_reason, steps))
    prompt = output.prompt_logprobs
    return [rows, None if prompt is None else [sorted(step or ()) for step in prompt]]


@pytest.fixture(scope="module")
def alone(shared_llava: Shared[LLM]) -> dict[tuple[str, ...], list[Any]]:
    return {pair: told(shared_llava.get().generate(*wish(*pair))[0]) for pair in PAIRS}


@pytest.fixture(scope="module")
def tight(llava_folder: Path, shared_llava: Shared[LLM]) -> Iterator[LLM]:
    """Prompts in chunks of 16 tokens at most, and a pool in which sequences lose their pages."""
    page = shared_llava.get().plan.bytes_per_token * 8
    with LLM(
        str(llava_folder), dtype="float32", block_size=8, kv_cache_bytes=page * 40, max_model_len=320, max_num_batched_tokens=16
    ) as llm:  # fmt: skip
        yield llm


def test_R016_every_pair_in_one_batch(llava: LLM, alone: dict[tuple[str, ...], list[Any]]) -> None:
    prompts, params = zip(*(wish(*pair) for pair in PAIRS))
    for pair, output in zip(PAIRS, llava.generate(list(prompts), list(params))):
        assert told(output) == alone[pair], pair


def test_R016_every_pair_with_chunked_prefill_and_preemption(
    tight: LLM, alone: dict[tuple[str, ...], list[Any]]
) -> None:
    prompts, params = zip(*(wish(*pair) for pair in PAIRS))
    outputs = tight.generate(list(prompts), list(params))
    for pair, output in zip(PAIRS, outputs):
        assert told(output) == alone[pair], pair
    assert sum(output.metrics.preemptions > 0 for output in outputs) > 10


def test_R016_every_pair_behind_a_prefix_that_is_cached(
    llava_folder: Path, alone: dict[tuple[str, ...], list[Any]]
) -> None:
    with LLM(str(llava_folder), dtype="float32", block_size=8, enable_prefix_caching=True) as llm:
        llm.generate([TEXT, PICTURES], SamplingParams(temperature=0, max_tokens=1))
        for pair in PAIRS:
            output = llm.generate(*wish(*pair))[0]
            assert told(output) == alone[pair], pair
            assert (output.num_cached_tokens > 0) == ("prompt_logprobs" not in pair), pair

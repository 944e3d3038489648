"""Log-probabilities of the prompt: those of transformers, however the prompt is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core import LLM, SamplingParams
from core.logits import logprobs as module

from .conftest import Hf, picture, prompt_ids, tokens

PARAMS = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, prompt_logprobs=3, logprobs=2)


def check(found: list[Any], logits: torch.Tensor, ids: list[int]) -> None:
    """Against the logits that transformers has for the same tokens."""
    expected = logits.log_softmax(-1)
    assert found[0] is None
    assert len(found) == len(ids)
    for at, step in enumerate(found[1:], 1):
        row = expected[at - 1]
        assert ids[at] in step
        for token, p in step.items():
            assert p.logprob == pytest.approx(row[token].item(), abs=1e-4)
            assert p.rank == int((row > row[token]).sum()) + 1
        likeliest = sorted(step, key=lambda t: step[t].rank)[:3]
        assert likeliest == row.topk(3).indices.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 2048])
def test_as_transformers_has_them_with_any_chunk_size(llama_folder: Path, hf: Hf, chunk: int) -> None:
    prompts = [prompt_ids(i, n) for i, n in enumerate((1, 2, 33, 60))]
    with LLM(str(llama_folder), dtype="float32", max_num_batched_tokens=chunk) as llm:
        outputs = llm.generate(prompts, PARAMS)
    for prompt, output in zip(prompts, outputs):
        with torch.inference_mode():
            logits = hf(llama_folder)(input_ids=torch.tensor([prompt])).logits[0]
        check(output.prompt_logprobs, logits, prompt)
        assert len(output.outputs[0].logprobs) == 4


def test_with_pictures(llava: LLM) -> None:
    prompt = {"prompt": "what <image> is this", "multi_modal_data": {"image": picture(1)}}
    with_media, again = (llava.generate(prompt, PARAMS)[0] for _ in range(2))
    found = with_media.prompt_logprobs
    assert len(found) == len(with_media.prompt_token_ids)
    assert all(t in step for t, step in zip(with_media.prompt_token_ids[1:], found[1:]))
    assert [{t: p.logprob for t, p in s.items()} for s in found[1:]] == [
        {t: p.logprob for t, p in s.items()} for s in again.prompt_logprobs[1:]
    ]


def test_when_sequences_lose_their_pages(llama: LLM, llama_folder: Path) -> None:
    prompts = [prompt_ids(i, 40) for i in range(6)]
    long = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, prompt_logprobs=3)
    alone = [llama.generate(p, long)[0] for p in prompts]
    pool = llama.plan.bytes_per_token * 8 * 32
    with LLM(
        str(llama_folder), dtype="float32", block_size=8, kv_cache_bytes=pool, max_model_len=120, max_num_batched_tokens=16
    ) as llm:  # fmt: skip
        crowded = llm.generate(prompts, long)
        assert llm.engine.scheduler.num_preemptions > 0
    for a, b in zip(alone, crowded):
        assert list(a.outputs[0].token_ids) == list(b.outputs[0].token_ids)
        for x, y in zip(a.prompt_logprobs[1:], b.prompt_logprobs[1:], strict=True):
            assert list(x) == list(y)
            assert all(x[t].logprob == pytest.approx(y[t].logprob, abs=1e-4) for t in x)


def test_a_cached_prefix_is_no_reason_to_leave_any_out(llama_folder: Path) -> None:
    prompt = prompt_ids(5, 50)
    with LLM(str(llama_folder), dtype="float32", block_size=8, enable_prefix_caching=True) as llm:
        first, second = (llm.generate(prompt, PARAMS)[0] for _ in range(2))
        assert second.num_cached_tokens == 0
        assert len(second.prompt_logprobs) == len(first.prompt_logprobs) == 50


def test_all_completions_of_a_prompt_share_them_and_streams_have_them(llama: LLM) -> None:
    params = SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True, prompt_logprobs=0)
    prompt = prompt_ids(0, 9)
    whole = llama.generate(prompt, params)[0]
    assert [list(step) for step in whole.prompt_logprobs[1:]] == [[t] for t in prompt[1:]]
    assert len({tuple(o.token_ids) for o in whole.outputs}) == 3
    for part in llama.generate(prompt, params, stream=True):
        assert part.prompt_logprobs == whole.prompt_logprobs or part.outputs[0].index > 0


def test_long_prompts_are_looked_at_in_slices(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompt_ids(7, 50)
    whole = llama.generate(prompt, PARAMS)[0].prompt_logprobs
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    sliced = llama.generate(prompt, PARAMS)[0].prompt_logprobs
    for x, y in zip(whole[1:], sliced[1:], strict=True):
        assert list(x) == list(y)
        assert all(x[t].logprob == pytest.approx(y[t].logprob, abs=1e-5) for t in x)


def test_who_does_not_ask_gets_none_and_the_same_tokens(llama: LLM) -> None:
    prompts = [prompt_ids(i, 12) for i in range(3)]
    plain = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    expected = tokens(llama, prompts, plain)
    asks = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, prompt_logprobs=1)
    mixed = llama.generate(prompts, [plain, asks, plain])
    assert [list(o.outputs[0].token_ids) for o in mixed] == expected
    assert [o.prompt_logprobs is None for o in mixed] == [True, False, True]

"""From logits to tokens: what a draw may depend on, and what it may not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import LLM, SamplingParams
from core.request import Request
from core.sampler import sample, uniform

from .conftest import prompt_ids


def row(seed: int = 0, output_len: int = 0, **params: Any) -> Request:
    return Request(
        request_id="r",
        token_ids=[0] * (1 + output_len),
        prompt_len=1,
        params=SamplingParams(**params),
        max_tokens=1,
        eos_token_ids=frozenset(),
        seed=seed,
    )


def probabilities(logits: np.ndarray[Any, Any], temperature: float, top_k: int, top_p: float) -> np.ndarray[Any, Any]:
    """What sampling is specified to do, in numpy, with the lowest id first among equals."""
    scaled = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-scaled, kind="stable")
    kept = order[: top_k or len(order)]
    p = scaled[kept] / scaled[kept].sum()
    most = int(np.searchsorted(np.cumsum(p), top_p * (1 - 1e-12)) + 1)
    out = np.zeros(len(logits))
    out[kept[:most]] = p[:most] / p[:most].sum()
    return out


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.6), (5, 0.6), (40, 0.9), (1000, 0.5)])
def test_draws_follow_temperature_top_k_and_top_p(temperature: float, top_k: int, top_p: float) -> None:
    draws, logits = 6000, np.random.default_rng(1).normal(0, 2, 50)
    requests = [row(i, temperature=temperature, top_k=top_k, top_p=top_p) for i in range(draws)]
    found = np.bincount(sample(torch.tensor([logits.tolist()] * draws), requests).tokens, minlength=50) / draws
    expected = probabilities(logits, temperature, top_k, top_p)
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected))
    # Five standard deviations of each frequency.
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-12).all()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_draw_depends_on_its_own_row_alone_even_among_equal_logits(data: st.DataObject) -> None:
    # Few distinct values: which of equal logits top-k keeps must not depend on what other rows ask for.
    logits = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=40, max_size=40)), dtype=torch.float32)
    one = st.builds(
        row,
        seed=st.integers(0, 2**64 - 1),
        output_len=st.integers(0, 5),
        top_k=st.sampled_from([0, 1, 2, 3, 7, 39, 40, 100]),
        top_p=st.sampled_from([1.0, 0.5]),
    )
    needle, others = data.draw(one), data.draw(st.lists(one, max_size=6))
    alone = sample(logits[None], [needle]).tokens[0]
    at = data.draw(st.integers(0, len(others)))
    requests = [*others[:at], needle, *others[at:]]
    assert sample(logits.expand(len(requests), -1), requests).tokens[at] == alone


def test_completions_of_one_prompt_draw_independently(llama: LLM) -> None:
    params = SamplingParams(n=4, seed=3)
    counters = np.arange(64, dtype=np.uint64)
    draws = [
        uniform(np.full(64, llama.runner.maker._seed(params, "0-x", i), dtype=np.uint64), counters)
        for i in range(params.n)
    ]
    for i, a in enumerate(draws):
        for b in draws[i + 1 :]:
            for shift in range(8):
                assert not np.isclose(a[shift:], b[: 64 - shift]).any()
                assert not np.isclose(b[shift:], a[: 64 - shift]).any()


def test_every_seed_and_every_place_gives_another_number() -> None:
    seeds, counters = np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(300, dtype=np.uint64))
    u = uniform(seeds.ravel(), counters.ravel())
    assert len(np.unique(u)) == u.size
    assert abs(u.mean() - 0.5) < 0.005
    grid = u.reshape(300, 300)
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_R015_any_seed_repeats_itself(llama: LLM, seed: int) -> None:
    params = SamplingParams(seed=seed, max_tokens=8, ignore_eos=True)
    a, b = (llama.generate(prompt_ids(0, 5), params)[0].outputs[0].token_ids for _ in range(2))
    assert a == b


@pytest.mark.parametrize("logits", [[float("nan"), 1.0], [float("inf"), 1.0], [-float("inf")] * 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_R068_a_row_without_numbers_is_marked_and_the_others_are_drawn(logits: list[float], temperature: float) -> None:
    requests = [row(temperature=temperature, logprobs=1), row(temperature=temperature, logprobs=1)]
    found = sample(torch.tensor([logits, [0.0, 50.0]]), requests)
    assert found.bad.tolist() == [True, False]
    assert found.tokens[1] == 1
    assert list(found.logprobs) == [1]


def test_masked_tokens_are_no_fault_and_are_never_drawn() -> None:
    requests = [row(i) for i in range(200)]
    found = sample(torch.tensor([[-float("inf"), 0.0, -float("inf"), 0.0]] * 200), requests)
    assert not found.bad.any()
    assert set(found.tokens) == {1, 3}


def test_logprobs_are_named_by_the_tokens_text(llama: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=3)
    output = llama.generate("hello there", params)[0].outputs[0]
    decode = llama.get_tokenizer().decode
    for step in output.logprobs:
        assert [p.decoded_token for p in step.values()] == [decode([t]) for t in step]

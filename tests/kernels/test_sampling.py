"""Draws and penalties in every form: those that sort are the specification of those that search."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.kernels import sampling
from core.kernels.choice import likeliest_form
from core.kernels.sampling import Draws
from tests.kernels.grid import device_of

FORMS = {"compiled": "core.kernels.sampling_few", "triton": "core.kernels.triton.sampling"}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(FORMS[request.param])
    return str(request.param)


def draws(rows: int, **asked: Any) -> Draws:
    """The same wish for each row, at places of [0, 1) spread evenly."""
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **asked}
    arrays = {k: np.full(rows, v, dtype=np.int64 if k == "top_k" else np.float64) for k, v in given.items()}
    return Draws(**arrays, u=(np.arange(rows) + 0.37) / rows)


def logits(rows: int, vocab: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def both(form: str, scores: Tensor, asked: Draws) -> tuple[list[int], list[int]]:
    found = import_module(FORMS[form]).draw(scores.to(device_of(form)), asked)
    return found.tolist(), sampling.draw(scores, asked).tolist()


WISHES = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 50, "top_p": 0.9},
    {"top_k": 600, "top_p": 0.3},
    {"top_p": 0.6},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 40, "top_p": 0.95, "min_p": 0.02, "temperature": 0.7},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (5, 1024), (4, 5003), (0, 9), (40, 9000)], ids=str)
def test_the_likeliest_token_is_the_first_of_the_largest(shape: tuple[int, int], dtype: torch.dtype) -> None:
    found = likeliest_form(torch.device("cpu"))
    scores = logits(*shape).to(dtype)
    assert torch.equal(found(scores), sampling.likeliest(scores))
    coarse = (scores / 4).round()  # many equal ones
    assert torch.equal(found(coarse), sampling.likeliest(coarse))
    wider = torch.cat((coarse, coarse + 100), dim=1)
    assert torch.equal(found(wider[:, : shape[1]]), sampling.likeliest(coarse))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [1, 16, 1025, 3000])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3.38e38, -3.38e38])
def test_numbers_that_are_none_are_told_wherever_they_are(vocab: int, value: float, dtype: torch.dtype) -> None:
    found = likeliest_form(torch.device("cpu"))
    places = sorted({0, vocab // 2, vocab - 1})
    scores = logits(len(places) + 1, vocab).to(dtype)
    scores[range(len(places)), places] = value
    scores[-1] = value
    ours, expected = found(scores), sampling.likeliest(scores)
    assert torch.equal(ours[1], expected[1])
    assert torch.equal(ours[0][ours[1] == 1], expected[0][expected[1] == 1])
    assert ((ours[0] >= 0) & (ours[0] < vocab)).all()


@pytest.mark.parametrize("asked", WISHES, ids=str)
@pytest.mark.parametrize("vocab", [1, 2, 100, 1500])
def test_a_search_draws_what_a_sort_does(form: str, asked: dict[str, Any], vocab: int) -> None:
    if asked.get("top_k", 0) >= vocab:
        asked = {**asked, "top_k": 0}  # what the sampler makes of it
    ours, expected = both(form, logits(1, vocab).expand(8, -1), draws(8, **asked))
    assert ours == expected


def test_rows_ask_for_different_things(form: str) -> None:
    wishes = [draws(1, **asked) for asked in WISHES]
    fields = ("temperature", "top_k", "top_p", "min_p")
    joined = {name: np.concatenate([getattr(w, name) for w in wishes]) for name in fields}
    ours, expected = both(form, logits(len(wishes), 700), Draws(**joined, u=np.linspace(0, 0.99, len(wishes))))
    assert ours == expected


@pytest.mark.parametrize("asked", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 7, "top_p": 0.8}], ids=str)
def test_among_equal_logits_the_lower_id_comes_first(form: str, asked: dict[str, Any]) -> None:
    """Each row draws another place of the distribution, so every token that may come does."""
    scores = torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, 1.0, 2.0, 0.0]).expand(64, -1)
    found = import_module(FORMS[form]).draw(scores.to(device_of(form)), draws(64, **asked)).cpu()
    weights = scores[0].softmax(-1).sort(descending=True, stable=True)
    most = asked.get("top_k", 8)
    share = weights.values[:most] / weights.values[:most].sum()
    kept = int((share.cumsum(0) < asked.get("top_p", 1.0) - 1e-6).sum()) + 1
    assert set(found.tolist()) == set(weights.indices[:kept].tolist())


@pytest.mark.parametrize("asked", [{}, {"top_p": 0.5}, {"min_p": 0.9}], ids=str)
def test_equal_logits_where_few_are_sorted(asked: dict[str, Any]) -> None:
    """More equal ones than are sorted, then some that are likelier than they."""
    scores = torch.zeros(2000)
    for likelier in ([], [1999, 700, 3]):
        scores[likelier] = torch.tensor([2.0, 9.0, 2.0])[: len(likelier)]
        ours, expected = both("compiled", scores.expand(50, -1), draws(50, **asked))
        assert ours == expected


def test_forbidden_tokens_are_never_drawn(form: str) -> None:
    scores = logits(16, 300)
    scores[:, ::2] = -torch.inf
    ours, expected = both(form, scores, draws(16, temperature=1.5))
    assert ours == expected
    assert all(token % 2 for token in ours)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_without_numbers_draws_something_of_the_vocabulary(form: str, value: float) -> None:
    scores = logits(2, 50)
    scores[0] = value
    for found in both(form, scores, draws(2, top_k=5, top_p=0.9)):
        assert 0 <= found[0] < 50
    assert both(form, scores[1:], draws(1))[0] == both(form, scores[1:], draws(1))[1]


def test_penalties_on_the_tokens_of_each_row(form: str) -> None:
    scores = logits(3, 40)
    rows, ids = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([3, 39, 0, 7, 3])
    times = torch.tensor([0.0, 1, 2, 0, 5])
    others = (torch.tensor([1.3] * 5), torch.tensor([0.5] * 5), torch.tensor([0.2, 0.2, 0.0, 0.0, 0.0]))
    ours, expected = scores.clone().to(device_of(form)), scores.clone()
    import_module(FORMS[form]).penalise(ours, *(x.to(device_of(form)) for x in (rows, ids, times, *others)))
    sampling.penalise(expected, rows, ids, times, *others)
    torch.testing.assert_close(ours.cpu(), expected)
    assert (expected != scores).sum() == 5

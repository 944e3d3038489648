"""NaN in one sequence never reaches another: not over padding, not over pages that are used again (row 68)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core import LLM, SamplingParams
from core.errors import NumericalError
from sdk.layers import VocabParallelEmbedding

from .conftest import assert_idle, prompt_ids, tokens
from .gate import Shared

FEW = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)

CROWD = [prompt_ids(i, n) for i, n in enumerate((9, 12, 5, 1))]


@pytest.fixture(scope="module")
def expected(shared_llama: Shared[LLM]) -> list[list[int]]:
    """What the crowd says where nothing is wrong."""
    return [tokens(shared_llama.get(), [prompt], FEW)[0] for prompt in CROWD]


@pytest.fixture(scope="module")
def poison(expected: list[list[int]]) -> int:
    """A token that the crowd neither hears nor says."""
    return next(t for t in range(8, 300) if not any(t in ids for ids in CROWD + expected))


Poisoned = Callable[..., LLM]


@pytest.fixture
def poisoned(llama_folder: Path, poison: int) -> Poisoned:
    """Opens the tiny Llama with NaN for that token's embedding."""

    def open_it(**options: Any) -> LLM:
        llm = LLM(str(llama_folder), **{"dtype": "float32", "block_size": 16, **options})
        (embedding,) = (m for m in llm.engine.model.modules() if isinstance(m, VocabParallelEmbedding))
        embedding.weight.data[poison] = float("nan")
        return llm

    return open_it


@pytest.fixture(params=["compiled", "torch"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KERNELS", request.param)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("length", [2, 4, 7, 13, 16])
def test_R068_neighbours_of_any_length_and_place_are_untouched(
    poisoned: Poisoned, poison: int, expected: list[list[int]], length: int
) -> None:
    bad = [9, poison, *[9] * (length - 2)]
    with poisoned() as llm:
        for place in range(len(CROWD) + 1):
            outputs = llm.generate([*CROWD[:place], bad, *CROWD[place:]], FEW, on_error="return")
            assert isinstance(outputs.pop(place).error, NumericalError)
            assert [o.error for o in outputs] == [None] * len(CROWD)
            assert [list(o.outputs[0].token_ids) for o in outputs] == expected
            assert_idle(llm)


@pytest.mark.usefixtures("_kernels")
def test_R068_a_prompt_in_chunks_ends_at_the_chunk_that_breaks_it(poisoned: Poisoned, poison: int) -> None:
    with poisoned(max_num_batched_tokens=8) as llm:
        stream = llm.generate([[poison] * 100, CROWD[0]], FEW, stream=True, on_error="return")
        first = next(stream)
        assert isinstance(first.error, NumericalError)
        assert first.outputs[0].finish_reason == "error"
        assert llm.engine.pool.num_free >= llm.engine.pool.num_pages - 1
        assert all(o.error is None for o in stream)
        assert_idle(llm)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("chunk", [4, 8, 64])
def test_R068_pages_that_held_nan_are_clean_when_they_are_used_again(
    poisoned: Poisoned, poison: int, expected: list[list[int]], chunk: int, llama: LLM
) -> None:
    pool = llama.plan.bytes_per_token * 16 * 5
    with poisoned(max_num_batched_tokens=chunk, kv_cache_bytes=pool) as llm:
        for place in (0, 2):
            prompts = [*CROWD[:place], [poison] * 60, *CROWD[place:]]
            outputs = llm.generate(prompts, FEW, on_error="return")
            assert isinstance(outputs.pop(place).error, NumericalError)
            assert [list(o.outputs[0].token_ids) for o in outputs] == expected
            assert tokens(llm, CROWD, FEW) == expected
        for keys, values in llm.engine.pages.values():
            assert torch.isfinite(keys).all()
            assert torch.isfinite(values).all()


def test_R068_a_stream_that_is_left_behind_leaves_no_nan(
    poisoned: Poisoned, poison: int, expected: list[list[int]], llama: LLM
) -> None:
    with poisoned(max_num_batched_tokens=8, kv_cache_bytes=llama.plan.bytes_per_token * 16 * 5) as llm:
        stream = llm.generate([CROWD[0], [9] * 40 + [poison] * 20], FEW, stream=True, on_error="return")
        for _ in range(3):
            next(stream)
        stream.close()
        assert tokens(llm, CROWD, FEW) == expected


def test_R068_what_was_done_before_is_kept(poisoned: Poisoned, poison: int, expected: list[list[int]]) -> None:
    with poisoned(max_num_batched_tokens=8) as llm:
        with pytest.raises(NumericalError, match="other requests are not affected") as caught:
            llm.generate([CROWD[3], [9] * 150 + [poison]], FEW)
        (done,) = caught.value.partial_results
        assert list(done.outputs[0].token_ids) == expected[3]
        assert_idle(llm)

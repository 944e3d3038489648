"""After the last attention only the rows that become logits are computed, and nobody can tell but by the time it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from core import LLM, SamplingParams
from core.errors import NumericalError
from core.kernels._lanes import DOTS_BF16
from core.kernels.linear_compiled import CompiledPackedLinear
from sdk.layers import VocabParallelEmbedding

from .conftest import prompt_ids, tokens

FEW = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=5)
PROMPTS = [prompt_ids(i, n) for i, n in enumerate((70, 1, 33, 150, 2))]

pytestmark = pytest.mark.skipif(not DOTS_BF16, reason="rows of other products depend on how many there are")


@pytest.fixture(scope="module")
def llm(llama_folder: Path) -> Iterator[LLM]:
    options = {"dtype": "bfloat16", "block_size": 16, "max_num_batched_tokens": 64, "enable_prefix_caching": False}
    with LLM(str(llama_folder), **options) as llm:
        yield llm


def said(llm: LLM) -> list[object]:
    """Tokens and their logarithms of all prompts, which come in chunks and beside each other."""
    return [[(p.outputs[0].token_ids, p.outputs[0].logprobs)] for p in llm.generate(PROMPTS, FEW, use_progress=False)]


def test_results_are_the_same_to_the_bit(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llm.engine.runner.narrows
    narrow = said(llm)
    monkeypatch.setattr(llm.engine.runner, "narrows", False)
    assert said(llm) == narrow


def test_the_last_layer_multiplies_what_is_wanted(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = llm.engine.model.model.layers
    inside = {id(layers[0].mlp.down_proj.kernel): "first", id(layers[-1].mlp.down_proj.kernel): "last"}
    seen: dict[str, list[int]] = {"first": [], "last": []}
    product = CompiledPackedLinear.__call__

    def multiply(self: CompiledPackedLinear, x: Tensor) -> Tensor:
        if id(self) in inside:
            seen[inside[id(self)]].append(len(x))
        return product(self, x)

    monkeypatch.setattr(CompiledPackedLinear, "__call__", multiply)
    once = SamplingParams(max_tokens=1)
    tokens(llm, [prompt_ids(7, 30), prompt_ids(8, 20)], once)
    assert seen == {"first": [50], "last": [50, 2]}, "what was asked for, and what was computed"
    tokens(llm, [prompt_ids(9, 100)], once)  # the first chunk has no row of logits
    assert seen == {"first": [50, 64, 36], "last": [50, 2, 64, 0, 36, 1]}
    llm.generate([prompt_ids(7, 30)], SamplingParams(max_tokens=1, prompt_logprobs=0), use_progress=False)
    assert seen["last"][6:] == [30]


def test_a_model_that_calls_its_layers_in_another_order_is_computed_whole(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = llm.engine.model.model
    layers, runner = decoder.layers, llm.engine.runner
    monkeypatch.setattr(decoder, "layers", layers[::-1])
    runner.recorded = None
    monkeypatch.setattr(runner, "narrows", False)
    expected = said(llm)
    monkeypatch.setattr(runner, "narrows", True)
    assert said(llm) == expected
    assert not runner.narrows


def test_what_goes_wrong_in_a_chunk_without_logits_ends_its_own_request(llama_folder: Path) -> None:
    whole, beside = PROMPTS[3], PROMPTS[0]
    with LLM(str(llama_folder), dtype="bfloat16", block_size=16, max_num_batched_tokens=64) as llm:
        expected = tokens(llm, [beside], FEW)
        poison = next(t for t in range(8, 300) if t not in {*whole, *beside, *expected[0]})
        kept = llm.engine.pool.num_kept
        (embedding,) = (m for m in llm.engine.model.modules() if isinstance(m, VocabParallelEmbedding))
        embedding.weight.data[poison] = float("nan")
        stream = llm.generate([[*whole[:20], poison, *whole[20:]], beside], FEW, stream=True, on_error="return")
        first = next(stream)
        assert isinstance(first.error, NumericalError)
        assert llm.engine.pool.num_kept == kept, "what a broken chunk wrote is kept for others"
        assert [t for o in stream for t in o.outputs[0].token_ids] == expected[0]

"""Steps that are recorded give what the model gives, and what cannot be repeated is not recorded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor, nn

from core import LLM, SamplingParams
from core.bind import attention_layers
from core.kernels.attention_recorded import RecordedAttention
from core.recording.arena import Arena, Full
from core.recording.steps import RecordedSteps
from core.recording.tape import Refused, Tape, anew
from core.step import StepTensors

from .conftest import Faulty, picture, prompt_ids, tokens

LONG = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


def arena(size: int = 2**16) -> Arena:
    return Arena(np.zeros(size, dtype=np.uint8))


# ---- the arena ------------------------------------------------------------------------------------------------------


def test_a_place_is_taken_as_long_as_any_view_of_it_is_held() -> None:
    found = arena()
    one = found.empty((4, 5), None, torch.float32)
    part = one.view(2, 10)[1, 3:7]
    address = one.data_ptr()
    del one
    assert found.num_held == 1
    other = found.empty((4, 5), None, torch.float32)
    assert other.data_ptr() != address
    del part
    assert found.empty((2, 2), None, torch.bfloat16).data_ptr() == address
    del other
    assert found.num_held == 0


def test_tensors_have_the_shape_that_is_asked_for() -> None:
    found = arena()
    turned = found.empty((3, 4), (1, 3), torch.int64)
    assert (turned.shape, turned.stride(), turned.dtype) == ((3, 4), (1, 3), torch.int64)
    assert turned.data_ptr() % 64 == 0
    assert found.empty((0, 7), None, torch.float32).shape == (0, 7)
    assert found.empty((), None, torch.bool).shape == ()


def test_what_does_not_fit_is_refused() -> None:
    found = arena(4096)
    kept = found.empty((3000,), None, torch.uint8)
    with pytest.raises(Full):
        found.empty((3000,), None, torch.uint8)
    del kept
    found.empty((3000,), None, torch.uint8)


# ---- the tape -------------------------------------------------------------------------------------------------------


def recorded(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tape, Tensor]:
    tape = Tape(arena(2**20))
    with torch.inference_mode(), tape.recording():
        out = function(*inputs)
    return tape, out


def mixed(x: Tensor) -> Tensor:
    a, b = x.split([3, 5], dim=1)
    y = torch.zeros_like(b)
    y[:, :3] += a
    y.mul_(2)
    best, where = y.max(dim=-1, keepdim=True)
    y = torch.cat((y.t().contiguous().t(), best, where.to(y.dtype)), dim=1)
    return torch.where(y > 0, y, torch.empty_like(y).fill_(-1)) @ torch.arange(14.0).view(7, 2).repeat(1, 1)


@torch.inference_mode()
def test_operations_are_repeated_with_other_numbers() -> None:
    place = torch.randn(4, 8)
    tape, out = recorded(mixed, place)
    for _ in range(3):
        other = torch.randn(4, 8)
        place.copy_(other)
        tape.play()
        assert torch.equal(out, mixed(other))


@torch.inference_mode()
def test_what_depends_on_more_is_called_anew() -> None:
    state = {"factor": 2.0}

    @anew
    def kernel(x: Tensor) -> Tensor:
        return x * state["factor"] + float(x.sum()) * 0  # numbers may be read here

    place = torch.ones(3)
    tape, out = recorded(lambda x: kernel(x + 1) - 1, place)
    state["factor"] = 5.0
    tape.play()
    assert out.tolist() == [9.0] * 3


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.sum().item(),
        lambda x: x if bool(x.sum() > 0) else -x,
        lambda x: x[x > 0],
        lambda x: x * x.tolist()[0],
        lambda x: x * float(x.numpy().sum()),
        lambda x: x * float(np.asarray(x).sum()),
        lambda x: x + torch.rand(3),
        lambda x: nn.functional.dropout(x, 0.5, training=True),
        lambda x: x if torch.equal(x, x) else -x,
    ],
)
def test_what_a_model_reads_of_its_numbers_is_not_recorded(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(Refused, match=r"recording|next step"):
        recorded(function, torch.ones(3))


def test_what_is_not_kept_lies_where_others_lay_before() -> None:
    found = arena()
    with torch.inference_mode(), Tape(found).recording():
        x = torch.ones(64) + 1
        addresses = set()
        for _ in range(9):
            x = (x * 2).sin()
            addresses.add(x.data_ptr())
    assert len(addresses) <= 3
    assert found.num_held == 1


# ---- the engine -----------------------------------------------------------------------------------------------------


def steps_of(llm: LLM) -> RecordedSteps:
    found = llm.engine.runner.recorded
    assert found is not None
    return found


def trusted(llm: LLM) -> dict[int, bool]:
    """Number of sequences → whether their steps are run from a recording."""
    return {key[0]: r is not None and r.trusted for key, r in steps_of(llm)._recordings.items()}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(llama_folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[LLM, LLM]]:
    """An engine that records, and one that does not."""
    options: dict[str, Any] = {"dtype": request.param, "block_size": 16, "kv_cache_bytes": 2**22}
    with LLM(str(llama_folder), **options) as one, LLM(str(llama_folder), enforce_eager=True, **options) as other:
        yield one, other


def test_recorded_steps_give_the_same(pair: tuple[LLM, LLM]) -> None:
    recording, eager = pair
    assert eager.engine.runner.recorded is None
    prompts = [prompt_ids(i, 3 + 7 * i) for i in range(5)]
    params = [SamplingParams(temperature=0, max_tokens=12 + 6 * i, ignore_eos=True, logprobs=3) for i in range(5)]
    for _ in range(2):
        found, expected = (llm.generate(prompts, params) for llm in pair)
        assert [o.outputs[0].token_ids for o in found] == [o.outputs[0].token_ids for o in expected]
        assert [o.outputs[0].logprobs for o in found] == [o.outputs[0].logprobs for o in expected]
    assert steps_of(recording).refused is None
    assert trusted(recording) == dict.fromkeys((1, 2, 3, 4, 5), True)


def test_compiled_kernels_are_called_without_a_look_at_their_arguments(pair: tuple[LLM, LLM]) -> None:
    pair[0].generate(prompt_ids(0, 5), LONG)
    layers = len(attention_layers(pair[0].engine.model))
    found = [recording for recording in steps_of(pair[0])._recordings.values() if recording is not None]
    assert found
    for recording in found:
        calls = [call for call, _ in recording._tape.calls]
        assert sum(isinstance(call, RecordedAttention) for call in calls) == layers
        assert not any(isinstance(call, Dispatcher) for call in calls)


def test_pictures_prompts_and_draws_among_recorded_steps(llava: LLM, llava_folder: Path) -> None:
    prompts: list[Any] = [
        {"prompt": "what <image>?", "multi_modal_data": {"image": picture(1)}},
        *(prompt_ids(i, 9 * i + 1) for i in range(4)),
    ]
    params = [SamplingParams(temperature=i % 2, seed=i, max_tokens=9 + 5 * i, ignore_eos=True) for i in range(5)]
    with LLM(str(llava_folder), dtype="float32", block_size=16, enforce_eager=True) as eager:
        assert tokens(llava, prompts, params) == tokens(eager, prompts, params)
    assert any(trusted(llava).values())


def test_what_a_recording_gets_wrong_is_never_given(faulty: Faulty, llava: LLM) -> None:
    from engine_plugin_llava.model import LlavaForConditionalGeneration

    class Counting(LlavaForConditionalGeneration):
        """Gives other numbers in every call, by what it keeps in Python."""

        calls = 0

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            Counting.calls += 1
            out: Tensor = super().forward(*args, **kwargs)
            return out * (1.0 + Counting.calls)

    expected = tokens(llava, [prompt_ids(3, 5)], LONG)
    with faulty("model", Counting) as llm:
        made = tokens(llm, [prompt_ids(3, 5)], LONG)
        assert steps_of(llm).refused == "a recorded step gave other numbers than the model"
    assert len(made[0]) == len(expected[0])


def test_a_model_that_looks_at_its_numbers_runs_as_it_is(faulty: Faulty, llava: LLM) -> None:
    from engine_plugin_llava.model import LlavaForConditionalGeneration

    class Looking(LlavaForConditionalGeneration):
        def forward(self, input_ids: Tensor | None, positions: Tensor, **kwargs: Any) -> Tensor:
            assert int(positions.max()) >= 0
            out: Tensor = super().forward(input_ids, positions, **kwargs)
            return out

    expected = tokens(llava, [prompt_ids(3, 5)], LONG)
    with faulty("model", Looking) as llm:
        assert tokens(llm, [prompt_ids(3, 5)], LONG) == expected
        assert "aten.item" in str(steps_of(llm).refused)


def test_a_model_that_keeps_what_it_made_runs_as_it_is(faulty: Faulty, llava: LLM) -> None:
    from engine_plugin_llava.model import LlavaForConditionalGeneration

    class Keeping(LlavaForConditionalGeneration):
        kept: Tensor | None = None

        def forward(self, input_ids: Tensor | None, positions: Tensor, **kwargs: Any) -> Tensor:
            self.kept = positions + 1
            out: Tensor = super().forward(input_ids, self.kept - 1, **kwargs)
            return out

    expected = tokens(llava, [prompt_ids(3, 5)], LONG)
    with faulty("model", Keeping) as llm:
        assert tokens(llm, [prompt_ids(3, 5)], LONG) == expected
        assert steps_of(llm).refused == "it keeps 1 tensors for later steps"


def test_a_step_that_needs_too_much_runs_as_it_is(llama_folder: Path, llama: LLM, monkeypatch: Any) -> None:
    monkeypatch.setattr("core.recording.steps.ARENA_BYTES", 1024)
    expected = tokens(llama, [prompt_ids(3, 5)], LONG)
    with LLM(str(llama_folder), dtype="float32", block_size=16) as llm:
        assert tokens(llm, [prompt_ids(3, 5)], LONG) == expected
        assert (steps_of(llm).refused, trusted(llm)) == (None, {1: False})


def test_only_so_many_recordings_are_kept(llama_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("core.recording.steps.MOST_RECORDINGS", 2)
    with LLM(str(llama_folder), dtype="float32", block_size=16) as llm:
        for count in (1, 2, 3, 1):
            tokens(llm, [prompt_ids(i, 4) for i in range(count)], LONG)
        assert trusted(llm) == {3: True, 1: True}


def test_a_closed_engine_leaves_no_recording(llama_folder: Path) -> None:
    with LLM(str(llama_folder), dtype="float32", block_size=16) as llm:
        tokens(llm, [prompt_ids(0, 4)], LONG)
        assert trusted(llm) == {1: True}
        model = llm.engine.model
    assert llm.engine.runner.recorded is None
    gc.collect()
    assert all(layer.kernel is None for layer in model.modules() if hasattr(layer, "kernel"))


def test_numbers_that_go_wrong_end_their_own_request(pair: tuple[LLM, LLM]) -> None:
    """NaN in the K/V of one sequence, under a recording: the others go on."""
    recording, _ = pair
    prompts = [prompt_ids(i, 6) for i in range(3)]
    expected = tokens(recording, prompts, LONG)
    real, calls = steps_of(recording).logits, 0

    def spoilt(step: StepTensors) -> Tensor:
        nonlocal calls
        calls += 1
        logits = real(step)
        if calls == 5:
            logits[1, 7] = float("nan")
        return logits

    recorder = steps_of(recording)
    recorder.logits = spoilt  # type: ignore[method-assign]
    try:
        made = recording.generate(prompts, LONG, on_error="return")
    finally:
        del recorder.logits
    assert [o.error is None for o in made] == [True, False, True]
    assert [list(made[i].outputs[0].token_ids) for i in (0, 2)] == [expected[0], expected[2]]

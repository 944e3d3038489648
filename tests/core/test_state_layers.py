"""Models with states in the engine: a slot for each sequence that runs, planned, reused, and never another's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_plugin_lfm2.model
import pytest
import torch
from engine_plugin_jamba.tiny import jamba
from engine_plugin_lfm2.tiny import lfm2
from engine_plugin_mamba.tiny import mamba2
from torch import Tensor

from core import LLM, SamplingParams, explain, plan
from core.errors import InvalidConfigError, PluginContractError
from sdk.layers import ShortConv, StateSpec
from sdk.testing.parity import random_prompt

OPTIONS: dict[str, Any] = {"dtype": "float32", "disable_progress": True}
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [random_prompt(320, length) for length in (1, 5, 9, 9, 40, 70)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint with attention and states, and one with states alone."""
    made = {}
    for tiny in (lfm2, mamba2, jamba):
        made[tiny.__name__] = tmp_path_factory.mktemp(tiny.__name__)
        tiny(0, made[tiny.__name__])
    return made


@pytest.fixture(params=["lfm2", "mamba2"])
def folder(folders: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return folders[request.param]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answers(llm: LLM, prompts: list[list[int]] = PROMPTS) -> list[tuple[int, ...]]:
    return [tuple(output.outputs[0].token_ids) for output in llm.generate(prompts, GREEDY)]


def test_what_a_slot_held_before_is_nothing_to_its_next_owner(folder: Path) -> None:
    with LLM(str(folder), max_num_seqs=1, **OPTIONS) as llm:
        first = answers(llm)
        for kept in (t for layer in llm.engine.slots.values() for t in layer.values()):
            kept.fill_(float("nan"))
        assert answers(llm) == first


def test_more_sequences_than_slots_take_turns(folder: Path) -> None:
    with LLM(str(folder), max_num_seqs=2, max_num_batched_tokens=16, **OPTIONS) as few:
        with LLM(str(folder), **OPTIONS) as many:
            assert answers(few) == answers(many)
        assert len(few.engine.slots) > 0
        assert all(len(t) == 2 for layer in few.engine.slots.values() for t in layer.values())


def test_the_plan_tells_what_a_sequence_takes(folders: dict[str, Path]) -> None:
    hybrid, alone = (explain(str(folders[name]), **OPTIONS).plan for name in ("jamba", "mamba2"))
    assert hybrid is not None
    assert alone is not None
    assert hybrid.slots is not None
    assert alone.slots is not None
    assert dict(hybrid.slots.kinds) == {"state-space": 3}
    assert hybrid.attention == {"full": 1}
    inner, size, before = 96, 8, 3
    assert hybrid.slots.bytes_each == 3 * 4 * (inner * size + before * inner)
    assert hybrid.memory.states == hybrid.slots.count * hybrid.slots.bytes_each
    assert (alone.bytes_per_token, alone.memory.cache, alone.attention) == (0, 0, {})
    assert alone.slots.count == alone.max_num_seqs == alone.full_sequences
    lines = dict(alone.lines())
    assert "cache" not in lines
    assert lines["attention"] == "none: no K/V"
    assert lines["state"].startswith("3 × state-space; ")
    assert f"{alone.max_num_seqs} sequences in " in lines["state"]


def test_the_plan_tells_which_options_change_nothing(folders: dict[str, Path]) -> None:
    def unused(name: str, **options: Any) -> str | None:
        plan = explain(str(folders[name]), **OPTIONS, **options).plan
        assert plan is not None
        return dict(plan.lines()).get("unused")

    sizes = {"block_size": 16, "kv_cache_bytes": 2**20}
    assert unused("mamba2", **sizes) == "block_size, kv_cache_bytes: no layer keeps K/V"
    assert unused("mamba2", kv_cache_bytes=None) is None
    assert unused("jamba", **sizes) is None


def test_memory_for_few_states_runs_few_sequences(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders["mamba2"]
    roomy = explain(str(folder), **OPTIONS).plan
    assert roomy is not None
    assert roomy.slots is not None
    room = int(3.5 * roomy.slots.bytes_each / plan.CACHE_SHARE["cpu"])
    fixed = roomy.memory.weights + roomy.memory.activations
    monkeypatch.setattr(plan, "available_bytes", lambda device: fixed + room)
    small = explain(str(folder), **OPTIONS).plan
    assert small is not None
    assert small.max_num_seqs == 3
    with LLM(str(folder), **OPTIONS) as llm:
        assert llm.plan.as_json() == small.as_json()
        assert len(answers(llm)) == len(PROMPTS)


def test_states_share_no_pages_and_explain_says_so(folder: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot share the pages of equal prefixes"):
        LLM(str(folder), enable_prefix_caching=True, **OPTIONS)
    told = explain(str(folder), **OPTIONS)
    assert "prefix caching" in dict(told.lines())["cannot"]


def test_a_prompt_that_gave_way_to_an_urgent_one_is_computed_anew(folder: Path) -> None:
    with LLM(str(folder), max_num_seqs=len(PROMPTS), **OPTIONS) as llm:
        alone = [answers(llm, [prompt])[0] for prompt in PROMPTS]
        made: dict[str, tuple[int, ...]] = {}
        for number, output in enumerate(llm.generate(PROMPTS, GREEDY, stream=True)):
            made[output.request_id] = made.get(output.request_id, ()) + tuple(output.outputs[0].token_ids)
            if number == 20:
                (urgent,) = llm.generate(PROMPTS[0], GREEDY, priority=-1)
                assert tuple(urgent.outputs[0].token_ids) == alone[0]
        assert list(made.values()) == alone
        assert llm.engine.scheduler.num_preemptions == 1


def test_what_a_layer_kept_may_move_to_another_name_or_out(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Registers(ShortConv):
        """The same convolution over three tokens, with a name for each that is kept."""

        def state_specs(self) -> dict[str, StateSpec]:
            return {"last": StateSpec((self.hidden_size,)), "older": StateSpec((self.hidden_size,))}

        def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            taps, made = self.conv.weight[:, 0].t(), []
            for token in x.unbind(1):
                made.append(taps[0] * state["older"] + taps[1] * state["last"] + taps[2] * token)
                state["older"], state["last"] = state["last"], token
            return torch.stack(made, dim=1)

    class Late(Registers):
        """Says each token one step later: what it returns is what it kept."""

        def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            made = []
            for token in x.unbind(1):
                made.append(state["last"])
                state["last"] = token
            return made[0][:, None] if len(made) == 1 else torch.stack(made, dim=1)

    def said(convolution: type[ShortConv], **options: Any) -> list[tuple[int, ...]]:
        monkeypatch.setattr(engine_plugin_lfm2.model, "ShortConv", convolution)
        with LLM(str(folders["lfm2"]), **OPTIONS, **options) as llm:
            return answers(llm)

    assert said(Registers) == said(ShortConv)
    # One token at a time, and all that there are at once.
    assert said(Late, max_num_seqs=1, max_num_batched_tokens=1) == said(Late)


def test_an_advance_that_breaks_its_promise_is_named(folders: dict[str, Path]) -> None:
    class Grows(ShortConv):
        def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            out = super().advance(x, state=state)
            state["conv"] = torch.cat((state["conv"], x), dim=1)
            return out

    class Flattens(ShortConv):
        def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
            return super().advance(x, state=state).flatten(0, 1)

    for kind, what in (
        (Grows, r"Grows\.advance left state\['conv'\] as .* \(1, 7, 64\)"),
        (Flattens, r"Flattens\.advance returned \(5, 64\), and the first two sizes are \(1, 5\)"),
    ):
        with LLM(str(folders["lfm2"]), **OPTIONS) as llm:
            layer = next(m for m in llm.engine.model.modules() if isinstance(m, ShortConv))
            layer.__class__ = kind
            with pytest.raises(PluginContractError, match=what):
                answers(llm, [PROMPTS[1]])

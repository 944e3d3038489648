"""One step: what goes to the encoder together, what a model may return, and who pays when it does not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_llava.model import LlavaForConditionalGeneration
from torch import Tensor

from core import LLM
from core.encoding import Job, same_arguments
from core.errors import EngineDeadError, PluginContractError, PluginRuntimeError
from core.request import Request
from core.sampling import SamplingParams
from core.step import StepBuilder
from sdk.multimodal import MultiModalFieldConfig, PlaceholderRange, ProcessedItem
from sdk.multimodal.fields import FieldValue

from .conftest import SHORT, Faulty, assert_idle, prompt_ids, tokens, with_pictures


def request_with(*values: dict[str, Any]) -> Request:
    items = [
        ProcessedItem(
            {name: FieldValue(value, field) for name, (value, field) in kwargs.items()},
            PlaceholderRange("image", i, i, 1, np.ones(1, dtype=np.bool_)),
        )
        for i, kwargs in enumerate(values)
    ]
    return Request("r", [0] * 8, 8, SamplingParams(), 1, frozenset(), 0, items)


def test_items_that_share_a_value_go_together_only_with_those_that_share_the_same() -> None:
    one, shared = MultiModalFieldConfig.batched("image"), MultiModalFieldConfig.shared("image", 2)
    scale, other = torch.tensor(1.0), torch.tensor(2.0)
    a = request_with(*[{"pixels": (torch.zeros(3), one), "scale": (scale, shared)}] * 2)
    b = request_with({"pixels": (torch.zeros(3), one), "scale": (other, shared)})
    assert same_arguments([Job(a, 0), Job(b, 0), Job(a, 1)]) == [[Job(a, 0), Job(a, 1)], [Job(b, 0)]]


def test_items_of_one_shape_go_together_and_others_by_themselves() -> None:
    one = MultiModalFieldConfig.batched("image")
    a, b = (request_with({"pixels": (torch.zeros(n), one)}) for n in (3, 4))
    c = request_with({"pixels": (torch.ones(3), one)})
    assert same_arguments([Job(a, 0), Job(b, 0), Job(c, 0)]) == [[Job(a, 0), Job(c, 0)], [Job(b, 0)]]


def test_a_step_of_nothing_reaches_no_kernel(llava: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[Any] = []
    monkeypatch.setattr(StepBuilder, "build", lambda self, plan: laid_out.append(plan))
    assert llava.engine.step() == []
    assert not laid_out


def test_R066_the_message_names_plugin_item_and_shapes(faulty: Faulty) -> None:
    class Short(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            rows = list(super().get_multimodal_embeddings(pixel_values))
            return [*rows[:-1], rows[-1][:5]]

    with faulty("model", Short) as llm, pytest.raises(PluginRuntimeError) as caught:
        llm.generate(with_pictures("<image> and <image>", 1, 2), SHORT)
    for part in ("get_multimodal_embeddings", "image 1", "(16, 64)", "(5, 64)"):
        assert part in str(caught.value)
    assert caught.value.request_id


def test_R066_a_batch_of_the_wrong_rank_shows_its_shape(faulty: Faulty) -> None:
    class Flat(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            return super().get_multimodal_embeddings(pixel_values).flatten(0, 1)

    with faulty("model", Flat) as llm, pytest.raises(PluginRuntimeError, match=r"1 items, got a Tensor \(16, 64\)"):
        llm.generate(with_pictures("<image>", 1), SHORT)


def test_R067_what_raises_for_the_third_of_a_mixed_batch_is_run_again_without_it(faulty: Faulty, llava: LLM) -> None:
    calls: list[int] = []

    class Refuses(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            calls.append(len(pixel_values))
            if any(torch.equal(p, bad) for p in pixel_values):
                raise RuntimeError("not this one")
            return super().get_multimodal_embeddings(pixel_values)

    process = llava.engine.inputs.process
    bad = process(with_pictures("<image>", 3)).prompt.items[0].kwargs["pixel_values"].value
    prompts = [
        with_pictures("<image> a <image>", 1, 2),
        with_pictures("b <image>", 3),
        "c",
        with_pictures("<image>", 4),
    ]
    expected = [tokens(llava, [p], SHORT)[0] for p in (prompts[0], *prompts[2:])]
    with faulty("model", Refuses) as llm:
        outputs = llm.generate(prompts, SHORT, on_error="return")
        assert "not this one" in str(outputs.pop(1).error)
        assert [list(o.outputs[0].token_ids) for o in outputs] == expected
        assert calls == [4, 2, 1, 1], "all at once, then each request by itself, in one step"


@pytest.mark.parametrize("wrong", ["rows", "rank"])
def test_R069_logits_of_the_wrong_shape_end_the_engine_with_the_plugins_name(faulty: Faulty, wrong: str) -> None:
    class Wrong(LlavaForConditionalGeneration):
        def compute_logits(self, hidden_states: Tensor) -> Tensor:
            logits = super().compute_logits(hidden_states)
            return logits[:-1] if wrong == "rows" else logits[0]

    with faulty("model", Wrong) as llm:
        with pytest.raises(PluginContractError, match="compute_logits: expected"):
            llm.generate(["a", "b"], SHORT)
        with pytest.raises(EngineDeadError, match="compute_logits"):
            llm.generate("c", SHORT)


def test_a_finished_request_and_its_pictures_are_let_go(llava: LLM) -> None:
    seen: list[weakref.ref[Request]] = []
    build = llava.engine.runner.builder.build

    def noted(plan: Any) -> Any:
        seen.extend(weakref.ref(s.request) for s in plan)
        return build(plan)

    llava.engine.runner.builder.build = noted  # type: ignore[method-assign]
    try:
        llava.generate(with_pictures("<image>", 1), SHORT)
    finally:
        del llava.engine.runner.builder.build  # type: ignore[misc]
    gc.collect()
    assert seen
    assert all(r() is None for r in seen)


def test_a_picture_is_encoded_once_however_its_prompt_is_cut(faulty: Faulty, llava: LLM) -> None:
    calls: list[int] = []

    class Counts(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            calls.append(len(pixel_values))
            return super().get_multimodal_embeddings(pixel_values)

    prompt = with_pictures("<image> a <image>", 1, 2)
    with faulty("model", Counts, max_num_batched_tokens=5) as llm:
        assert tokens(llm, prompt, SHORT) == tokens(llava, prompt, SHORT)
        assert calls == [1, 1]


def test_a_step_without_anybody_to_sample_is_a_step(llama: LLM) -> None:
    engine = llama.engine
    engine.reset_caches()
    request = Request("r", prompt_ids(0, 300), 300, SHORT, 4, frozenset(), 0)
    engine.add(request)
    engine.scheduler.max_num_batched_tokens = 100
    try:
        assert [engine.step() for _ in range(2)] == [[], []]
        assert request.num_computed == 200
        assert engine.step() == [request]
        assert request.output_len == 1
        engine.abort(["r", "nobody"])
        assert engine.step() == []
    finally:
        engine.scheduler.max_num_batched_tokens = engine.config.max_num_batched_tokens
    assert_idle(llama)


@pytest.mark.parametrize("form", ["one tensor", "a list"])
def test_R076_an_encoder_that_writes_to_its_arguments_changes_nothing_for_others(faulty: Faulty, form: str) -> None:
    class Careless(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Any) -> Any:
            found = super().get_multimodal_embeddings(pixel_values).clone()
            pixel_values.zero_()
            return found

    class CarelessWithLists(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Any) -> Any:
            assert isinstance(pixel_values, list)
            found = [super(CarelessWithLists, self).get_multimodal_embeddings(p)[0].clone() for p in pixel_values]
            for p in pixel_values:
                p.zero_()
            return found

    model = Careless if form == "one tensor" else CarelessWithLists
    with faulty("model", model, encoder_cache_bytes=0, enable_prefix_caching=False) as llm:
        prompt = with_pictures("<image> and <image>", 1, 2)
        items = llm.engine.inputs.process(prompt).prompt.items
        before = [i.kwargs["pixel_values"].value.clone() for i in items]
        encoder = llm.engine.runner.encoder
        if form == "a list":
            encoder.call = lambda jobs: encoder.model.get_multimodal_embeddings(  # type: ignore[method-assign]
                encoder._to_device([j.item.kwargs["pixel_values"].value[None] for j in jobs])
            )
        found = [tokens(llm, prompt, SHORT) for _ in range(2)]
        assert found[0] == found[1]
        assert all(torch.equal(i.kwargs["pixel_values"].value, b) for i, b in zip(items, before))

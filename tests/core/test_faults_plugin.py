"""A plugin that fails while it serves one request ends that request, with its name on the error, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llava.model import LlavaForConditionalGeneration
from engine_plugin_llava.processing import LlavaMultiModalProcessor
from torch import Tensor

from core import LLM
from core.errors import EngineDeadError, EngineError, MediaError, NumericalError, PluginRuntimeError, PromptUpdateError
from sdk.multimodal import PromptReplacement
from sdk.registry import register, unregister

from .conftest import GREEDY, picture, prompt_ids, tokens

ARCH = "LlavaForConditionalGeneration"
MARK = 255
"""A picture that is white makes the faulty plugins fail; any other is served."""


def white() -> Any:
    from PIL import Image

    return Image.new("RGB", (30, 30), (MARK,) * 3)


def ask(image: Any) -> dict[str, Any]:
    return {"prompt": "a <image> b", "multi_modal_data": {"image": image}}


@pytest.fixture
def registered() -> Iterator[Callable[[type], None]]:
    """Puts a class of ours in the place of the installed plugin's, for one test."""

    def put(cls: type) -> None:
        if not issubclass(cls, torch.nn.Module):
            register(ARCH, cls, part="processor")
            return
        register(ARCH, cls, role="vision-language")
        for part, name in (
            ("processor", "MultiModalProcessor"),
            ("info", "ProcessingInfo"),
            ("dummy_inputs", "DummyInputsBuilder"),
        ):
            register(ARCH, f"engine_plugin_llava.processing:Llava{name}", part=part)

    yield put
    unregister(ARCH)


def bright(pixel_values: Tensor) -> list[bool]:
    """Which of the pictures are white."""
    return [bool((p.std() < 0.2) and (p.mean() > 1)) for p in pixel_values]


Change = Callable[[list[Tensor], int], Any]


def faulty_model(change: Change) -> type:
    class Faulty(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            rows = list(super().get_multimodal_embeddings(pixel_values))
            for i, is_bad in enumerate(bright(pixel_values)):
                if is_bad:
                    return change(rows, i)
            return rows

    return Faulty


def put_row(make: Callable[[Tensor], Any]) -> Change:
    def change(rows: list[Any], i: int) -> list[Any]:
        rows[i] = make(rows[i])
        return rows

    return change


def fail(rows: list[Tensor], i: int) -> Any:
    raise RuntimeError("cannot see this one")


FAULTS: dict[str, Change] = {
    "count": lambda rows, i: rows[:-1],
    "length": put_row(lambda r: r[:-1]),
    "width": put_row(lambda r: r[:, :-1]),
    "ndim": put_row(lambda r: r[0]),
    "dtype": put_row(lambda r: r.long()),
    "not a tensor": put_row(lambda r: r.tolist()),
    "none": lambda rows, i: None,
    "nan": put_row(lambda r: r * float("nan")),
    "raises": fail,
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_R066_R067_wrong_embeddings_end_their_own_request(
    llava_folder: Path, llava: LLM, registered: Callable[[type], None], change: Change
) -> None:
    crowd = [prompt_ids(1, 12), ask(picture(3)), ask(picture(4))]
    expected = tokens(llava, crowd)
    registered(faulty_model(change))
    with LLM(str(llava_folder), dtype="float32", block_size=16) as llm:
        outputs = llm.generate([crowd[0], crowd[1], ask(white()), crowd[2]], GREEDY, on_error="return")
        error = outputs[2].error
        assert isinstance(error, PluginRuntimeError)
        assert error.hook == "get_multimodal_embeddings"
        assert "in-process" in error.plugin
        assert [o.error for i, o in enumerate(outputs) if i != 2] == [None] * 3
        assert [list(o.outputs[0].token_ids) for i, o in enumerate(outputs) if i != 2] == expected
        assert llm.engine.pool.num_free == llm.engine.pool.num_pages


def test_R066_tensors_that_are_only_unusual_are_taken(
    llava_folder: Path, llava: LLM, registered: Callable[[type], None]
) -> None:
    class Unusual(LlavaForConditionalGeneration):
        def get_multimodal_embeddings(self, pixel_values: Tensor) -> Any:
            rows = super().get_multimodal_embeddings(pixel_values)
            return tuple(r.double().t().contiguous().t().requires_grad_() for r in rows.clone())

    registered(Unusual)
    expected = tokens(llava, ask(picture(3)))
    unregister(ARCH)
    registered(Unusual)
    with torch.inference_mode(False), LLM(str(llava_folder), dtype="float32", block_size=16) as llm:
        assert tokens(llm, ask(picture(3))) == expected


def test_R068_numbers_that_are_none_end_their_own_request(
    llava_folder: Path, llava: LLM, registered: Callable[[type], None]
) -> None:
    crowd = [prompt_ids(i, 12) for i in range(3)]
    expected = tokens(llava, crowd)
    harmless = {t for row in (*crowd, *expected) for t in row} | {9, 10}
    poison = next(t for t in range(20, 300) if t not in harmless)

    class Faulty(LlavaForConditionalGeneration):
        def get_input_embeddings(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out = super().get_input_embeddings(input_ids, *args, **kwargs)
            return torch.where((input_ids == poison).unsqueeze(-1), float("nan"), out)

        def forward(
            self, input_ids: Any, positions: Any, intermediate_tensors: Any = None, inputs_embeds: Any = None
        ) -> Any:
            embeds = self.get_input_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
            return super().forward(None, positions, inputs_embeds=embeds)

    registered(Faulty)
    with LLM(str(llava_folder), dtype="float32", block_size=16) as llm:
        for _ in range(3):  # the pages of the poisoned request are used again
            outputs = llm.generate([crowd[0], [9, poison, 10], *crowd[1:]], GREEDY, on_error="return")
            assert isinstance(outputs[1].error, NumericalError)
            assert outputs[1].error.code == "numerical_error"
            assert [list(o.outputs[0].token_ids) for i, o in enumerate(outputs) if i != 1] == expected


def faulty_processor(**hooks: Any) -> type:
    return type("Faulty", (LlavaMultiModalProcessor,), hooks)


def call_and_fail(error: Exception) -> Any:
    def _call_hf_processor(self: Any, prompt: Any, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        if any(i.getpixel((0, 0)) == (MARK,) * 3 for i in mm_data["images"]):
            raise error
        return LlavaMultiModalProcessor._call_hf_processor(self, prompt, mm_data, mm_kwargs, tok_kwargs)

    return _call_hf_processor


@pytest.mark.parametrize(
    ("raised", "kind"), [(ValueError("bad shape"), PluginRuntimeError), (MediaError("not this one"), MediaError)]
)
def test_R070_a_processor_that_raises_on_one_picture(
    llava_folder: Path, llava: LLM, registered: Callable[[type], None], raised: Exception, kind: type[EngineError]
) -> None:
    expected = tokens(llava, ask(picture(3)))
    registered(faulty_processor(_call_hf_processor=call_and_fail(raised)))
    with LLM(str(llava_folder), dtype="float32", block_size=16) as llm:
        outputs = llm.generate([ask(white()), ask(picture(3))], GREEDY, on_error="return")
        assert type(outputs[0].error) is kind
        assert str(raised) in str(outputs[0].error)
        assert list(outputs[1].outputs[0].token_ids) == expected[0]
        with pytest.raises(kind, match="prompt 1"):
            llm.generate([ask(picture(3)), ask(white())], GREEDY)


def updates(make: Callable[[int], list[Any]]) -> Any:
    def _get_prompt_updates(self: Any, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        return make(self.info.get_hf_config().image_token_index)

    return _get_prompt_updates


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda i: [PromptReplacement("image", [299], [i] * 4)], "299"),
        (lambda i: [], "image"),
        (lambda i: [PromptReplacement("image", [i], lambda n: [7, 7])], "image"),
    ],
    ids=["never match", "no update", "too few tokens"],
)
def test_R071_prompt_updates_that_do_not_fit(
    llava_folder: Path, registered: Callable[[type], None], make: Callable[[int], list[Any]], says: str
) -> None:
    registered(faulty_processor(_get_prompt_updates=updates(make)))
    with LLM(str(llava_folder), dtype="float32") as llm:
        outputs = llm.generate([ask(picture()), "plain"], GREEDY, on_error="return")
        assert isinstance(outputs[0].error, (PromptUpdateError, PluginRuntimeError))
        assert says in str(outputs[0].error)
        assert outputs[1].error is None
        assert llm.engine.pool.num_free == llm.engine.pool.num_pages


def test_a_model_that_breaks_in_forward_ends_the_engine_with_the_cause(
    llava_folder: Path, registered: Callable[[type], None]
) -> None:
    class Broken(LlavaForConditionalGeneration):
        def forward(
            self, input_ids: Any, positions: Any, intermediate_tensors: Any = None, inputs_embeds: Any = None
        ) -> Any:
            raise RuntimeError("a bug in forward")

    registered(Broken)
    with LLM(str(llava_folder), dtype="float32") as llm:
        with pytest.raises(PluginRuntimeError, match="a bug in forward"):
            llm.generate(["hello", "there"], GREEDY)
        with pytest.raises(EngineDeadError, match="a bug in forward"):
            llm.generate("again", GREEDY)
        assert llm.engine.pool.num_free == llm.engine.pool.num_pages

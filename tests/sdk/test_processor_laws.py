"""The laws of the token path, held by the tiny LLaVA: HF's ids, HF's tensors, items independent and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_llava.processing import (
    LlavaDummyInputsBuilder,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from sdk import Architecture
from sdk.errors import InvalidRequestError, MediaUnsupportedError, PluginRuntimeError, PromptUpdateError
from sdk.multimodal import BaseMultiModalProcessor, MultiModalFieldConfig
from sdk.testing.reference import load_processor

Pictures = list[Image.Image]
IMAGE = 4


@pytest.fixture(scope="module")
def processor(folder: Path, records: list[Architecture]) -> BaseMultiModalProcessor[Any]:
    return load_processor(folder, records)


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder, backend="pil")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("What is shown?", 0),
        ("", 0),
        ("<image>", 1),
        ("USER: <image>\nWhat is shown? ASSISTANT:", 1),
        ("in the <image> middle, a <image><image> pair", 3),
        ("ends with <image>", 1),
    ],
)
def test_ids_and_tensors_equal_hf_from_text_and_from_tokens(
    processor: BaseMultiModalProcessor[Any], hf: Any, pictures: Pictures, text: str, count: int
) -> None:
    expected = hf(text=text, images=pictures[:count] or None, return_tensors="pt")
    ids = hf.tokenizer(text)["input_ids"]
    for prompt in (text, ids):
        made = processor.apply(prompt, {"image": pictures[:count]})
        assert made.prompt_token_ids == expected["input_ids"][0].tolist()
        assert [i.placeholder.index for i in made.items] == list(range(count))
        for item, pixels in zip(made.items, expected.get("pixel_values", [])):
            assert torch.equal(item.kwargs["pixel_values"].value, pixels)
            place = item.placeholder
            assert made.prompt_token_ids[place.offset : place.offset + place.length] == [IMAGE] * 16
            assert place.num_embeds == 16


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=12), min_size=1, max_size=4)
)
def test_ids_equal_hf_for_any_text_around_the_pictures(
    processor: BaseMultiModalProcessor[Any], hf: Any, pictures: Pictures, parts: list[str]
) -> None:
    text, images = "<image>".join(parts), pictures[: len(parts) - 1]
    expected = hf(text=text, images=images or None)["input_ids"][0]
    assert processor.apply(text, {"image": images}).prompt_token_ids == list(expected)


def test_items_are_independent_of_each_other_and_keep_their_order(
    processor: BaseMultiModalProcessor[Any], pictures: Pictures
) -> None:
    alone = [processor.apply("<image>", {"image": [p]}).items[0].kwargs["pixel_values"].value for p in pictures]
    order = [2, 0, 1, 0]
    together = processor.apply("<image> " * 4, {"image": [pictures[i] for i in order]})
    for item, i in zip(together.items, order, strict=True):
        assert torch.equal(item.kwargs["pixel_values"].value, alone[i])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        {"crop_size": {"height": 24, "width": 8}},
        {"do_center_crop": False, "size": {"height": 20, "width": 36}},
        {"do_normalize": False},
    ],
    ids=str,
)
def test_processor_arguments_of_a_request_win_over_the_engines_and_move_the_token_count(
    folder: Path, records: list[Architecture], hf: Any, pictures: Pictures, kwargs: dict[str, Any]
) -> None:
    expected = hf(text="a <image> b", images=pictures[:1], return_tensors="pt", **kwargs)
    per_engine = load_processor(folder, records, **kwargs)
    per_request = load_processor(folder, records, crop_size={"height": 8, "width": 8}, do_rescale=True)
    request = {"crop_size": {"height": 32, "width": 32}, **kwargs}
    for made in (
        per_engine.apply("a <image> b", {"image": pictures[:1]}),
        per_request.apply("a <image> b", {"image": pictures[:1]}, request),
    ):
        assert made.prompt_token_ids == expected["input_ids"][0].tolist()
        assert torch.equal(made.items[0].kwargs["pixel_values"].value, expected["pixel_values"][0])


@pytest.mark.parametrize("strategy", ["default", "full", None])
@pytest.mark.parametrize("additional", [0, 1, 3])
def test_the_count_follows_hf_for_each_strategy_and_number_of_additional_tokens(
    folder: Path, records: list[Architecture], pictures: Pictures, strategy: str | None, additional: int
) -> None:
    processor = load_processor(folder, records)
    hf = processor.info.get_hf_processor()
    hf.vision_feature_select_strategy, hf.num_additional_image_tokens = strategy, additional
    expected = hf(text="a <image> b", images=pictures[:1])["input_ids"][0]
    assert processor.apply("a <image> b", {"image": pictures[:1]}).prompt_token_ids == list(expected)


def test_a_processor_from_before_patch_size_takes_it_from_the_config(
    folder: Path, records: list[Architecture], pictures: Pictures
) -> None:
    processor = load_processor(folder, records)
    hf = processor.info._hf_processor
    hf.patch_size, hf.vision_feature_select_strategy, hf.num_additional_image_tokens = None, None, 0
    assert processor.apply("<image>", {"image": pictures[:1]}).items[0].placeholder.num_embeds == 16


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("no place", 1, r"1 image items but the prompt has a place for 0"),
        ("<image>", 2, r"2 image items but the prompt has a place for 1: item 1 finds no token ids \[4\]"),
        ("<image><image>", 1, r"1 placeholder tokens more than media items \(given: 1 image\)"),
        ("<image>", 0, r"1 placeholder tokens more than media items \(given: none\)"),
    ],
)
def test_a_count_unlike_the_items_is_an_error(
    processor: BaseMultiModalProcessor[Any], pictures: Pictures, text: str, count: int, message: str
) -> None:
    with pytest.raises(PromptUpdateError, match=message):
        processor.apply(text, {"image": pictures[:count]})


@pytest.mark.parametrize("rows", [1, 16, 40])
def test_embeddings_take_as_many_tokens_as_they_have_rows(processor: BaseMultiModalProcessor[Any], rows: int) -> None:
    given = [torch.randn(rows, 64), torch.randn(3, 64)]
    made = processor.apply("a <image> b <image>", {"image": given})
    assert [i.placeholder.num_embeds for i in made.items] == [rows, 3]
    assert all(torch.equal(i.embeddings, e) and not i.kwargs for i, e in zip(made.items, given))
    stacked = processor.apply("a <image> b", {"image": torch.randn(1, rows, 64)})
    assert stacked.items[0].placeholder.num_embeds == rows
    named = processor.apply("a <image> b", {"image": {"image_embeds": given[:1]}})
    assert torch.equal(named.items[0].embeddings, given[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.randn(4, 63)], "63 wide, the language model is 64"),
        ([torch.randn(0, 64)], "not empty"),
        ([torch.randn(4)], "cannot use a Tensor torch\\.float32 \\(4,\\) as a picture"),
        (
            {"pixel_values": torch.zeros(1, 3, 32, 32), "image_size": [1]},
            "has image_size; this model takes: pixel_values",
        ),
        ({}, "empty"),
        (["not a picture"], "cannot use a str as a picture"),
        ([np.zeros((4, 4, 3), dtype=np.float32)], "must be uint8"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_media_that_cannot_be_used_are_the_callers_fault(
    processor: BaseMultiModalProcessor[Any], value: Any, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        processor.apply("<image>", {"image": value})


def test_processed_tensors_give_what_the_raw_pictures_gave(
    processor: BaseMultiModalProcessor[Any], hf: Any, pictures: Pictures
) -> None:
    raw = processor.apply("<image> and <image>", {"image": pictures[:2]})
    tensors = hf(text="<image><image>", images=pictures[:2], return_tensors="pt")["pixel_values"]
    made = processor.apply("<image> and <image>", {"image": {"pixel_values": tensors}})
    assert made.prompt_token_ids == raw.prompt_token_ids
    for one, other in zip(made.items, raw.items, strict=True):
        assert torch.equal(one.kwargs["pixel_values"].value, other.kwargs["pixel_values"].value)


@pytest.mark.parametrize("form", ["array", "channels first", "grey array", "tensor"])
def test_a_picture_may_be_an_array(processor: BaseMultiModalProcessor[Any], pictures: Pictures, form: str) -> None:
    array = np.asarray(pictures[0])
    values = {
        "array": (array, pictures[0]),
        "channels first": (array.transpose(2, 0, 1), pictures[0]),
        "grey array": (np.asarray(pictures[1]), pictures[1]),
        "tensor": (torch.from_numpy(array.copy()), pictures[0]),
    }
    given, same = (processor.apply("<image>", {"image": v}).items[0].kwargs["pixel_values"].value for v in values[form])
    assert torch.equal(given, same)


def test_a_modality_that_the_model_does_not_take_is_refused(processor: BaseMultiModalProcessor[Any]) -> None:
    with pytest.raises(MediaUnsupportedError, match="takes no audio; it takes: image"):
        processor.apply("x", {"audio": [np.zeros(8)]})


def test_a_limit_of_the_plugin_is_kept(
    folder: Path, processor: BaseMultiModalProcessor[Any], pictures: Pictures
) -> None:
    class OnePicture(LlavaProcessingInfo):
        def get_supported_mm_limits(self) -> dict[str, int | None]:
            return {"image": 1}

    info = OnePicture(processor.info.ctx)
    limited = LlavaMultiModalProcessor(info, LlavaDummyInputsBuilder(info))
    with pytest.raises(InvalidRequestError, match="2 image items in one prompt, but this model takes at most 1"):
        limited.apply("<image><image>", {"image": pictures[:2]})


def test_the_worst_case_is_told_without_running_anything_and_is_true(
    processor: BaseMultiModalProcessor[Any], pictures: Pictures
) -> None:
    counts = {"image": 2}
    told = processor.info.get_mm_max_tokens_per_item(512, counts)["image"]
    data = processor.dummy_inputs.get_dummy_mm_data(512, counts)
    made = processor.apply(processor.dummy_inputs.get_dummy_text(counts), data)
    assert [i.placeholder.num_embeds for i in made.items] == [told, told]
    for picture in pictures:
        width, height = picture.size
        assert processor.info.get_num_image_tokens(image_width=width, image_height=height) <= told


def test_a_hook_that_fails_is_named_with_its_plugin(
    processor: BaseMultiModalProcessor[Any], pictures: Pictures
) -> None:
    class Broken(LlavaMultiModalProcessor):
        def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
            raise KeyError("nothing here")

    class Forgets(LlavaMultiModalProcessor):
        def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
            return {"pixels": MultiModalFieldConfig.batched("image")}

    with pytest.raises(PluginRuntimeError, match=r"_get_prompt_updates: KeyError: 'nothing here'") as caught:
        Broken(processor.info, processor.dummy_inputs).apply("<image>", {"image": pictures[:1]})
    assert caught.value.hook == "_get_prompt_updates"
    with pytest.raises(PluginRuntimeError, match="1 image items went in and 0 came out"):
        Forgets(processor.info, processor.dummy_inputs).apply("<image>", {"image": pictures[:1]})


def test_tokenizer_arguments_reach_the_tokenizer(folder: Path, processor: BaseMultiModalProcessor[Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = processor.apply("hello", tok_kwargs={"add_special_tokens": False})
    assert made.prompt_token_ids == tokenizer("hello", add_special_tokens=False)["input_ids"]

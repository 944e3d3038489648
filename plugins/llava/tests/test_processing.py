"""What becomes of prompts and pictures, for every kind of checkpoint: ids and tensors are those of HF's processors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_llava import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from sdk import Architecture
from sdk.errors import EngineError, InvalidRequestError, MediaUnsupportedError
from sdk.testing.reference import load_processor

pytestmark = pytest.mark.usefixtures("pixtral_processor_of_hf")
KINDS: dict[str, Callable[[int, Path], None]] = {
    "llava": tiny.llava,
    "next": tiny.llava_next,
    "siglip": tiny.llava_over_siglip,
    "pixtral": tiny.llava_over_pixtral,
}
SIZES = [(64, 48), (32, 33), (40, 90), (32, 32), (1, 1), (7, 40), (40, 7), (640, 80), (96, 512), (500, 500), (97, 31)]
"""Widths and heights."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(kind)
    KINDS[kind](0, path)
    return path


@pytest.fixture(scope="module")
def ours(made: Path, records: list[Architecture]) -> Any:
    return load_processor(made, records)


@pytest.fixture
def theirs(made: Path) -> Any:
    return AutoProcessor.from_pretrained(made, backend="pil")


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def assert_same(ours: Any, theirs: Any, text: str, pictures: list[Image.Image]) -> None:
    text = text.replace("<image>", theirs.image_token)
    expected = theirs(text=text, images=pictures or None, return_tensors="pt")
    prompt = ours.apply(text, {"image": pictures})
    assert prompt.prompt_token_ids == expected["input_ids"][0].tolist()
    assert len(prompt.items) == len(pictures)
    for i, item in enumerate(prompt.items):
        assert set(item.kwargs) == set(expected) - {"input_ids", "attention_mask"}
        for name, part in item.kwargs.items():
            whole, own = expected[name][i], tuple(slice(n) for n in part.value.shape)
            assert torch.equal(part.value, whole[own])
            padding = torch.ones_like(whole, dtype=torch.bool)
            padding[own] = False
            assert not whole[padding].any()
            assert len(pictures) > 1 or not padding.any()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_picture_of_any_size(ours: Any, theirs: Any, size: tuple[int, int]) -> None:
    assert_same(ours, theirs, "USER: <image>\nWhat is shown? ASSISTANT:", [picture(*size)])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_any_mode(ours: Any, theirs: Any, mode: str) -> None:
    assert_same(ours, theirs, "<image>", [picture(50, 30, mode)])


def test_no_picture_and_several_of_different_sizes(ours: Any, theirs: Any) -> None:
    assert_same(ours, theirs, "USER: What is shown? ASSISTANT:", [])
    assert_same(ours, theirs, "<image> and <image><image> differ how?", [picture(*size) for size in SIZES[:3]])
    assert_same(ours, theirs, "<image>" * 3, [picture(64, 20), picture(64, 20), picture(20, 64)])


def test_what_was_processed_before_is_taken_as_it_is(ours: Any, theirs: Any) -> None:
    pictures = [picture(*size) for size in SIZES[:3]]
    text = theirs.image_token * 3
    given = dict(theirs(text=text, images=pictures, return_tensors="pt"))
    tensors = {name: value for name, value in given.items() if name not in ("input_ids", "attention_mask")}
    one, other = ours.apply(text, {"image": tensors}), ours.apply(text, {"image": pictures})
    assert one.prompt_token_ids == other.prompt_token_ids
    for a, b in zip(one.items, other.items, strict=True):
        assert all(torch.equal(a.kwargs[name].value, b.kwargs[name].value) for name in tensors)


def test_processed_pictures_without_their_sizes_are_refused(ours: Any, theirs: Any, kind: str) -> None:
    given = {
        "pixel_values": theirs(text=theirs.image_token, images=[picture(50, 30)], return_tensors="pt").pixel_values
    }
    if kind in ("next", "pixtral"):
        with pytest.raises(InvalidRequestError, match="there is no image_sizes"):
            ours.apply(theirs.image_token, {"image": given})
    else:
        assert len(ours.apply(theirs.image_token, {"image": given}).items) == 1


def test_processed_pictures_of_wrong_sizes_are_refused(ours: Any, theirs: Any, kind: str) -> None:
    if kind not in ("next", "pixtral"):
        pytest.skip("this kind has no sizes")
    inputs = theirs(text=theirs.image_token, images=[picture(32, 32)], return_tensors="pt")
    for sizes in ([[4000, 4000], [1, 1]], [[64, 64]] if kind == "pixtral" else [[512, 512]]):
        given = {"pixel_values": inputs.pixel_values, "image_sizes": torch.tensor(sizes)}
        with pytest.raises(InvalidRequestError, match="processed image data"):
            ours.apply(theirs.image_token, {"image": given})


def test_embeddings_stand_where_the_picture_would(ours: Any, theirs: Any, kind: str) -> None:
    rows, text = torch.randn(11, 64), f"a {theirs.image_token} b"
    if kind == "pixtral":
        with pytest.raises(MediaUnsupportedError, match="do not say where the picture's lines end"):
            ours.apply(text, {"image": rows})
        return
    prompt = ours.apply(text, {"image": rows})
    assert prompt.prompt_token_ids.count(theirs.image_token_id) == 11
    assert prompt.items[0].placeholder.num_embeds == 11


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_rows_are_told_without_processing_and_none_has_more_than_the_dummy(ours: Any, width: int, height: int) -> None:
    info = ours.info
    told = info.get_num_image_tokens(image_width=width, image_height=height)
    assert told <= info.get_max_image_tokens()
    try:
        item = ours.apply(info.get_hf_processor().image_token, {"image": [Image.new("RGB", (width, height))]}).items[0]
    except EngineError:
        assert told == 0
        return
    assert item.placeholder.num_embeds == told
    assert item.placeholder.length <= info.get_mm_max_tokens_per_item(512, {"image": 1})["image"]


def test_the_largest_size_gives_what_is_promised(ours: Any) -> None:
    for count in (1, 3):
        text = ours.dummy_inputs.get_dummy_text({"image": count})
        prompt = ours.apply(text, ours.dummy_inputs.get_dummy_mm_data(512, {"image": count}))
        promised = ours.info.get_mm_max_tokens_per_item(512, {"image": count})["image"]
        assert [item.placeholder.length for item in prompt.items] == [promised] * count


@pytest.mark.parametrize("size", [(640, 1), (1, 640), (65, 1)], ids=str)
def test_a_picture_too_thin_for_a_pixel_across_is_the_callers_fault(
    tmp_path: Path, records: list[Architecture], size: tuple[int, int]
) -> None:
    tiny.llava_over_pixtral(0, tmp_path)
    with pytest.raises(MediaUnsupportedError, match=rf"{size[0]}×{size[1]} pixels is too thin"):
        load_processor(tmp_path, records).apply("[IMG]", {"image": [picture(*size)]})


def test_a_smaller_limit_for_the_whole_engine_counts_everywhere(tmp_path: Path, records: list[Architecture]) -> None:
    tiny.llava_over_pixtral(0, tmp_path)
    processor = load_processor(tmp_path, records, size={"longest_edge": 32})
    assert processor.info.get_max_image_tokens() == 16
    assert processor.info.get_mm_max_tokens_per_item(512, {"image": 1}) == {"image": 20}
    items = processor.apply("[IMG]", {"image": [picture(200, 100)]}).items
    assert items[0].kwargs["pixel_values"].value.shape == (3, 16, 32)
    assert items[0].placeholder.num_embeds == processor.info.get_num_image_tokens(image_width=200, image_height=100)


def test_our_pixtral_processor_is_transformers_own(tmp_path: Path, records: list[Architecture]) -> None:
    """It may be called as HF's are, with text: another way than the engine's, to the same ids and tensors."""
    tiny.llava_over_pixtral(0, tmp_path)
    ours = load_processor(tmp_path, records).info.get_hf_processor()
    theirs = AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(ours) is not type(theirs)
    assert ours.chat_template == theirs.chat_template
    pictures = [picture(*size) for size in SIZES[:3]]
    for call in (
        partial(dict, text="a [IMG] b [IMG][IMG]", images=pictures),
        partial(dict, text="[IMG]", images=pictures[0]),
        partial(dict, text="no picture"),
    ):
        one, other = ours(**call()), theirs(**call(), return_tensors="pt")
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match=r"2 \[IMG\] in the text, 1 pictures"):
        ours(text="[IMG][IMG]", images=pictures[:1])

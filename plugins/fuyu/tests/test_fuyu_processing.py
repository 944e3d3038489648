"""Prompts and patches, against HF's own processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from sdk import Architecture
from sdk.errors import EngineError, InvalidRequestError, MediaUnsupportedError, PromptUpdateError
from sdk.multimodal import BaseMultiModalProcessor
from sdk.testing.reference import load_processor

Records = list[Architecture]
Draw = Callable[..., Image.Image]
Processor = BaseMultiModalProcessor[Any]
TEXTS = (
    "What is shown?",
    "",
    " ",
    "it ends with ",
    "two\nlines",
    "快速的棕色狐狸 🦊",
    "a|b<c>0x04",
    "what is in <box>1, 2, 30, 40</box>?",
)
# Width and height: patches that fit and that do not, the target and a pixel off, larger, all kinds of aspects.
SIZES = (
    (1, 1),
    (8, 8),
    (9, 7),
    (64, 48),
    (65, 48),
    (64, 49),
    (63, 47),
    (33, 32),
    (200, 30),
    (30, 200),
    (640, 479),
    (500, 13),
)


@pytest.fixture(scope="module")
def processor(folder: Path, records: Records) -> Processor:
    return load_processor(folder, records)


@pytest.fixture(scope="module")
def hf(processor: Processor) -> Any:
    return processor.info.get_hf_processor()


def grid_of(ids: list[int], hf: Any) -> list[list[int]]:
    """Rows and columns that token ids tell of."""
    rows = ids.count(hf.image_newline_id)
    return [[rows, ids.count(hf.image_token_id) // rows]]


def assert_equals_hf(processor: Processor, hf: Any, text: str, picture: Image.Image) -> None:
    expected = hf(text=text, images=[picture], return_tensors="pt")
    made = processor.apply(text, {"image": [picture]})
    assert made.prompt_token_ids == expected["input_ids"][0].tolist()
    (item,) = made.items
    assert torch.equal(item.kwargs["image_patches"].value, expected["image_patches"])
    rows, columns = item.kwargs["image_grid_hw"].value.tolist()
    assert [[rows, columns]] == grid_of(made.prompt_token_ids, hf)
    assert item.placeholder.offset == 0
    assert item.placeholder.length == rows * (columns + 1) + 1
    taken = [made.prompt_token_ids[i] for i in item.placeholder.mask.nonzero()[0]]
    assert taken == [hf.image_token_id] * (rows * columns)
    told = processor.info.get_image_feature_grid_size(image_width=picture.width, image_height=picture.height)
    assert told == (columns, rows)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_hf_for_any_text(processor: Processor, hf: Any, draw: Draw, text: str) -> None:
    assert_equals_hf(processor, hf, text, draw(33, 32))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ids_and_patches_equal_hf_for_any_size(
    processor: Processor, hf: Any, draw: Draw, size: tuple[int, int]
) -> None:
    assert_equals_hf(processor, hf, "What is shown?", draw(*size))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_mode_are_read_as_colours(processor: Processor, hf: Any, draw: Draw, mode: str) -> None:
    assert_equals_hf(processor, hf, "What is shown?", draw(33, 32, mode))


def test_the_answer_begins_after_the_text_where_there_is_a_picture_and_only_there(
    processor: Processor, hf: Any, draw: Draw
) -> None:
    begin = hf.tokenizer.convert_tokens_to_ids("<0x04>")
    plain = processor.apply("What is shown?").prompt_token_ids
    assert plain == list(hf(text="What is shown?")["input_ids"])
    assert begin not in plain
    assert plain[0] == hf.tokenizer.bos_token_id
    seen = processor.apply("What is shown?", {"image": [draw(9, 7)]}).prompt_token_ids
    assert seen.index(begin) == len(seen) - 1
    assert hf.tokenizer.bos_token_id not in seen


def test_token_ids_with_or_without_what_the_tokenizer_adds_give_what_the_text_gives(
    processor: Processor, draw: Draw
) -> None:
    for text in TEXTS:
        expected = processor.apply(text, {"image": [draw(9, 7)]}).prompt_token_ids
        for special in (True, False):
            ids = processor.info.get_tokenizer()(text, add_special_tokens=special)["input_ids"]
            assert processor.apply(ids, {"image": [draw(9, 7)]}).prompt_token_ids == expected


def test_either_of_the_names_of_hfs_output_is_read(processor: Processor, draw: Draw) -> None:
    picture = draw(30, 20)
    former = processor.apply("a", {"image": [picture]})
    latter = processor.apply("a", {"image": [picture]}, {"return_legacy_image_output": False})
    assert former.prompt_token_ids == latter.prompt_token_ids
    old, new = former.items[0].kwargs, latter.items[0].kwargs
    assert set(old) == {"image_patches", "image_grid_hw"}
    assert set(new) == {"pixel_values", "image_grid_hw"}
    assert torch.equal(old["image_patches"].value, new["pixel_values"].value)


@pytest.mark.parametrize("size", [(4096, 1), (1, 5000)], ids=str)
def test_a_picture_that_hf_fits_into_no_pixel_keeps_one(
    processor: Processor, hf: Any, draw: Draw, size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="Size must contain"):
        hf(text="a", images=[draw(*size)])
    (item,) = processor.apply("a", {"image": [draw(*size)]}).items
    columns, rows = processor.info.get_image_feature_grid_size(image_width=size[0], image_height=size[1])
    assert (columns, rows) == ((8, 1) if size[0] > 1 else (1, 6))
    assert item.kwargs["image_grid_hw"].value.tolist() == [rows, columns]
    assert item.kwargs["image_patches"].value.isfinite().all()


def test_no_picture_takes_more_tokens_than_the_dummy_and_the_dummy_takes_what_is_told(
    processor: Processor, draw: Draw
) -> None:
    told = processor.info.get_mm_max_tokens_per_item(512, {"image": 1})["image"]
    dummy = processor.apply("", processor.dummy_inputs.get_dummy_mm_data(512, {"image": 1}))
    assert dummy.items[0].placeholder.length == told == 6 * (8 + 1) + 1
    for size in SIZES:
        assert processor.apply("", {"image": [draw(*size)]}).items[0].placeholder.length <= told


def test_another_target_for_the_whole_engine_changes_patches_and_promises(
    folder: Path, records: Records, draw: Draw
) -> None:
    wide = load_processor(folder, records, size={"height": 16, "width": 160})
    (item,) = wide.apply("a", {"image": [draw(320, 32)]}).items
    assert item.kwargs["image_grid_hw"].value.tolist() == [2, 20]
    assert item.placeholder.length == wide.info.get_mm_max_tokens_per_item(512, {"image": 1})["image"] == 43


def test_one_picture_a_prompt(processor: Processor, draw: Draw) -> None:
    with pytest.raises(InvalidRequestError, match="2 image items in one prompt, but this model takes at most 1"):
        processor.apply("a", {"image": [draw(8, 8), draw(8, 8)]})


@pytest.mark.parametrize("pictures", [0, 1])
def test_a_patch_token_in_the_prompt_is_refused(processor: Processor, draw: Draw, pictures: int) -> None:
    with pytest.raises(PromptUpdateError, match="1 placeholder tokens more than media items"):
        processor.apply("a |SPEAKER| b", {"image": [draw(8, 8)] * pictures})


@pytest.mark.parametrize("name", ["pixel_values", "image_patches"])
def test_processed_pictures_are_taken_with_their_grid(processor: Processor, draw: Draw, name: str) -> None:
    raw = processor.apply("a", {"image": [draw(30, 20)]})
    patches = raw.items[0].kwargs["image_patches"].value
    given = {name: patches, "image_grid_hw": torch.tensor([[3, 4]])}
    made = processor.apply("a", {"image": given})
    assert made.prompt_token_ids == raw.prompt_token_ids
    assert torch.equal(made.items[0].kwargs[name].value, patches)


PATCHES, GRID = torch.zeros(12, 192), torch.tensor([[3, 4]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixel_values": PATCHES}, r"needs image_grid_hw, an integer tensor \[\[rows, columns\]\]"),
        ({"pixel_values": PATCHES, "image_grid_hw": GRID[0]}, "needs image_grid_hw"),
        ({"pixel_values": PATCHES, "image_grid_hw": GRID.float()}, "needs image_grid_hw"),
        ({"pixel_values": PATCHES, "image_grid_hw": GRID + 1}, "says 4 rows and 5 columns, but there are 12 patches"),
        ({"pixel_values": PATCHES, "image_grid_hw": -GRID}, "says -3 rows and -4 columns"),
        ({"pixel_values": PATCHES[None], "image_grid_hw": GRID}, "is a float tensor pixel_values or image_patches"),
        ({"pixel_values": PATCHES.tolist(), "image_grid_hw": GRID}, "is a float tensor"),
        ({"pixel_values": PATCHES, "image_patches": PATCHES, "image_grid_hw": GRID}, "is a float tensor"),
        ({"image_grid_hw": GRID}, "is a float tensor"),
        ({"pixel_values": PATCHES, "image_grid_hw": GRID, "image_sizes": GRID}, "has image_sizes; this model takes"),
    ],
)
def test_what_is_wrong_with_processed_pictures_is_said(
    processor: Processor, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        processor.apply("a", {"image": given})


@pytest.mark.parametrize("form", ["tensor", "mapping"])
def test_embeddings_are_refused_since_they_tell_no_rows_and_columns(processor: Processor, form: str) -> None:
    embeddings = torch.zeros(12, 64)
    with pytest.raises(MediaUnsupportedError, match="embeddings do not tell them") as caught:
        processor.apply("a", {"image": embeddings if form == "tensor" else {"image_embeds": embeddings}})
    assert isinstance(caught.value, EngineError)


def test_a_checkpoint_that_says_nothing_of_modes_is_mended(
    folder: Path, tmp_path: Path, records: Records, hf: Any, draw: Draw
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    assert config["image_processor"].pop("do_convert_rgb") is True
    path.write_text(json.dumps(config))
    assert not AutoProcessor.from_pretrained(tmp_path, backend="pil").image_processor.do_convert_rgb
    assert_equals_hf(load_processor(tmp_path, records), hf, "a", draw(33, 32, "L"))

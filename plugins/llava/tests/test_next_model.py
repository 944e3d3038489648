"""LLaVA-NeXT by itself, against transformers' own: logits at every position."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_llava import tiny
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaNextConfig, LlavaNextForConditionalGeneration, SiglipVisionConfig

from sdk import Architecture
from sdk.testing.reference import assert_close, load_reference
from sdk.testing.tiny import save_tiny

Records = list[Architecture]
Pictures = list[Image.Image]
Check = Callable[..., None]


@pytest.fixture(scope="module")
def next_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("next")
    tiny.llava_next(0, path)
    return path


def variant(source: Path, target: Path, *, processor: dict[str, Any] | None = None, **change: Any) -> Path:
    """The tiny checkpoint under another config, with fresh weights."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = LlavaNextConfig.from_pretrained(source)
    for name, value in change.items():
        setattr(config, name, value)
    save_tiny(LlavaNextForConditionalGeneration(config), target, seed=1)
    if processor:
        hf_processor = AutoProcessor.from_pretrained(target, backend="pil")
        for name, value in processor.items():
            setattr(hf_processor if hasattr(hf_processor, name) else hf_processor.image_processor, name, value)
        hf_processor.save_pretrained(target)
    return target


def test_logits_equal_hf_without_one_and_with_three_pictures(
    assert_equals_hf: Check, next_folder: Path, records: Records, pictures: Pictures
) -> None:
    assert_equals_hf(next_folder, records, pictures, 0, 1, 3)


@pytest.mark.parametrize("size", [(1, 1), (300, 20), (20, 300), (800, 9), (64, 64), (97, 96)], ids=str)
def test_pictures_of_extreme_shapes(
    assert_equals_hf: Check, next_folder: Path, records: Records, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert_equals_hf(next_folder, records, [Image.fromarray(pixels)], 1)


@pytest.mark.parametrize("layers", [-1, 1, [-2, 0]], ids=str)
def test_any_feature_layer_and_any_list_of_them(
    assert_equals_hf: Check,
    next_folder: Path,
    tmp_path: Path,
    records: Records,
    pictures: Pictures,
    layers: int | list[int],
) -> None:
    assert_equals_hf(variant(next_folder, tmp_path, vision_feature_layer=layers), records, pictures, 1)


def test_other_pinpoints(
    assert_equals_hf: Check, next_folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    pinpoints = [[32, 32], [32, 128], [96, 96]]
    change: dict[str, Any] = {"image_grid_pinpoints": pinpoints}
    assert_equals_hf(variant(next_folder, tmp_path, processor=change, **change), records, pictures, 1, 3)


def test_a_tower_without_a_class_token_keeps_every_feature(
    assert_equals_hf: Check, next_folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        vision_use_head=False,
    )
    full = {"vision_feature_select_strategy": "full"}
    target = variant(
        next_folder, tmp_path, processor={**full, "num_additional_image_tokens": 0}, vision_config=vision, **full
    )
    assert_equals_hf(target, records, pictures, 1, 3)


def test_tied_embeddings(
    assert_equals_hf: Check, next_folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    target = variant(next_folder, tmp_path, tie_word_embeddings=True)
    assert not any("lm_head" in name for name in load_file(target / "model.safetensors"))
    assert_equals_hf(target, records, pictures, 1)


def test_published_names_and_those_below_model_load(
    assert_equals_hf: Check, next_folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    shutil.copytree(next_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(next_folder / "model.safetensors")
    assert "image_newline" in weights
    renamed = {tiny.under_model(tiny.published(name)): tensor for name, tensor in weights.items()}
    assert "model.image_newline" in renamed
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    assert_equals_hf(tmp_path, records, pictures, 1)


def test_pictures_of_different_tiles_encode_together_as_alone(next_folder: Path, records: Records) -> None:
    model = load_reference(next_folder, records)
    sizes = torch.tensor([[60, 60], [10, 90], [64, 30]])
    tiles = [torch.randn(model.tiling.count(tuple(size)), 3, 32, 32) for size in sizes.tolist()]
    together = model.get_multimodal_embeddings(tiles, sizes)
    assert len({len(rows) for rows in together}) == 3
    for one, size, rows in zip(tiles, sizes, together, strict=True):
        assert_close(model.get_multimodal_embeddings(one[None], size[None])[0], rows, 1e-5)


def test_tiles_that_do_not_belong_to_the_size_are_named(next_folder: Path, records: Records) -> None:
    model = load_reference(next_folder, records)
    with pytest.raises(ValueError, match="60 by 60 pixels has 2 by 2 tiles of 4 by 4 patches, but the tower gave 2"):
        model.get_multimodal_embeddings(torch.randn(1, 3, 3, 32, 32), torch.tensor([[60, 60]]))

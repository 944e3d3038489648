"""LLaVA over SigLIP and over Pixtral's tower, against transformers' own: logits at every position."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_plugin_llava import tiny
from PIL import Image
from transformers import LlavaConfig, LlavaForConditionalGeneration

from sdk import Architecture
from sdk.testing.reference import assert_close, load_reference
from sdk.testing.tiny import save_tiny

pytestmark = pytest.mark.usefixtures("pixtral_processor_of_hf")
Records = list[Architecture]
Pictures = list[Image.Image]
Check = Callable[..., None]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("siglip")
    tiny.llava_over_siglip(0, path)
    return path


@pytest.fixture(scope="module")
def pixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixtral")
    tiny.llava_over_pixtral(0, path)
    return path


def test_over_siglip(assert_equals_hf: Check, siglip: Path, records: Records, pictures: Pictures) -> None:
    assert_equals_hf(siglip, records, pictures, 0, 1, 3)


def test_over_pixtral(assert_equals_hf: Check, pixtral: Path, records: Records, pictures: Pictures) -> None:
    assert_equals_hf(pixtral, records, pictures, 0, 1, 3)


@pytest.mark.parametrize("size", [(1, 1), (64, 2), (3, 60), (200, 200), (300, 20)], ids=str)
def test_over_pixtral_pictures_of_any_shape(
    assert_equals_hf: Check, pixtral: Path, records: Records, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert_equals_hf(pixtral, records, [Image.fromarray(pixels)], 1)


@pytest.mark.parametrize("layers", [-2, [0, -1]], ids=str)
def test_over_pixtral_any_feature_layer(
    assert_equals_hf: Check,
    pixtral: Path,
    tmp_path: Path,
    records: Records,
    pictures: Pictures,
    layers: int | list[int],
) -> None:
    shutil.copytree(pixtral, tmp_path, dirs_exist_ok=True)
    config = LlavaConfig.from_pretrained(pixtral)
    config.vision_feature_layer = layers
    save_tiny(LlavaForConditionalGeneration(config), tmp_path, seed=1)
    assert_equals_hf(tmp_path, records, pictures, 1, 3)


def test_over_pixtral_pictures_of_different_shapes_encode_together_as_alone(pixtral: Path, records: Records) -> None:
    model = load_reference(pixtral, records)
    pictures = [torch.randn(3, *size) for size in ((64, 64), (8, 40), (32, 16))]
    together = model.get_multimodal_embeddings(pictures)
    assert [len(rows) for rows in together] == [64, 5, 8]
    for picture, rows in zip(pictures, together, strict=True):
        assert_close(model.get_multimodal_embeddings(picture[None])[0], rows, 1e-5)

"""Pixtral's tower by itself, against transformers' own: pictures of any size, alone and side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_towers import tiny
from engine_plugin_towers.plugin import engine_architectures
from torch import Tensor
from transformers import PixtralVisionConfig, PixtralVisionModel

from sdk.testing.reference import assert_close, load_hf, load_reference
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SIZES = [(32, 32), (8, 8), (8, 120), (200, 16), (64, 24), (40, 40)]
"""Heights and widths; most are larger or of another shape than the config's image_size."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pixtral")
    tiny.pixtral(0, path)
    return path


def picture(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_hidden_states_of_any_size_equal_hf_by_their_index(folder: Path, size: tuple[int, int]) -> None:
    ours, x, asked = load_reference(folder, RECORDS), picture(*size), [-1, 0, 2, -3, 3]
    with torch.inference_mode():
        theirs = load_hf(folder)(x, output_hidden_states=True)
        for layer, state in zip(asked, ours(x, layers=asked), strict=True):
            assert_close(state, theirs.hidden_states[layer])
        assert_close(ours(x), theirs.last_hidden_state)


def test_a_picture_sees_nothing_of_those_beside_it(folder: Path) -> None:
    """transformers takes all of them in one sequence; each of its parts is the picture's own."""
    ours, theirs = load_reference(folder, RECORDS), load_hf(folder)
    pictures = [picture(*size) for size in SIZES]
    most = [max(size[i] for size in SIZES) for i in (0, 1)]
    padded = torch.zeros(len(SIZES), 3, *most)
    for row, x in zip(padded, pictures, strict=True):
        row[:, : x.shape[2], : x.shape[3]] = x[0]
    with torch.inference_mode():
        together = theirs(padded, image_sizes=torch.tensor(SIZES)).last_hidden_state[0]
        parts = together.split([h * w // 64 for h, w in SIZES])
        for x, part in zip(pictures, parts, strict=True):
            assert_close(ours(x)[0], part)


def test_pictures_of_one_size_encode_together_as_alone(folder: Path) -> None:
    ours, x = load_reference(folder, RECORDS), picture(16, 40, count=3)
    for i, together in enumerate(ours(x)):
        assert_close(ours(x[i : i + 1])[0], together, 1e-5)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "silu"}, {"num_channels": 1}, {"patch_size": 4}, {"rope_parameters": {"rope_theta": 500.0}}],
    ids=str,
)
def test_other_configs_equal_hf(tmp_path: Path, change: dict[str, object]) -> None:
    rope = change.get("rope_parameters")
    if isinstance(rope, dict):
        change = {"rope_parameters": {"rope_type": "axial", **rope}}
    config = PixtralVisionConfig(**{**tiny.SHAPE, "hidden_size": 48, **change})
    save_tiny(PixtralVisionModel(config), tmp_path, seed=1)
    x = torch.randn(2, config.num_channels, 16, 40)
    with torch.inference_mode():
        theirs = load_hf(tmp_path)(x).last_hidden_state[0]
        assert_close(load_reference(tmp_path, RECORDS)(x).flatten(0, 1), theirs)


def test_a_picture_smaller_than_a_patch_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="40 by 7 pixels has no patch of 8 pixels a side"):
        load_reference(folder, RECORDS)(picture(7, 40))


def test_heads_that_cannot_turn_both_ways_are_refused(tmp_path: Path) -> None:
    config = PixtralVisionConfig(**{**tiny.SHAPE, "hidden_size": 24})
    save_tiny(PixtralVisionModel(config), tmp_path, seed=1)
    with pytest.raises(ValueError, match="head_dim that 4 divides, not 6"):
        load_reference(tmp_path, RECORDS)

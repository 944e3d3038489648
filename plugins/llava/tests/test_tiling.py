"""LLaVA-NeXT's tiles: every number is transformers' own."""

from __future__ import annotations

import pytest
import torch
from engine_plugin_llava.tiling import Tiling, best_pinpoint
from hypothesis import given
from hypothesis import strategies as st
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
CHECKPOINTS = [(PUBLISHED, 336, 14), ([[384 * i, 384 * j] for i in (1, 2, 3) for j in (1, 2, 3)], 384, 14)]
sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.mark.parametrize(("pinpoints", "side", "patch_size"), CHECKPOINTS)
@given(size=sizes)
def test_tiles_and_what_is_kept_of_them_equal_hf(
    pinpoints: list[list[int]], side: int, patch_size: int, size: tuple[int, int]
) -> None:
    tiling = Tiling.of(pinpoints, side, patch_size)
    assert best_pinpoint(size, tiling.pinpoints) == select_best_resolution(size, pinpoints)
    assert tiling.count(size) == image_size_to_num_patches(list(size), pinpoints, side)
    assert tiling.grid(size) == get_anyres_image_grid_shape(list(size), pinpoints, side)
    rows, columns = (n * tiling.patches for n in tiling.grid(size))
    lines = torch.arange(rows * columns).view(1, rows, columns)
    assert torch.equal(lines[0][tiling.kept(size)], unpad_image(lines, list(size))[0])


def test_the_first_of_equal_pinpoints_is_taken() -> None:
    assert best_pinpoint((10, 10), [(32, 64), (64, 32)]) == (32, 64)
    assert best_pinpoint((10, 10), [(64, 32), (32, 64)]) == (64, 32)


@pytest.mark.parametrize("pinpoints", [[], [[336, 500]], [[0, 336]]], ids=str)
def test_pinpoints_that_are_no_tiles_are_refused(pinpoints: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="whole numbers of tiles of 336 pixels"):
        Tiling.of(pinpoints, 336, 14)

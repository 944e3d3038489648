"""Idefics2's tower by itself, against transformers' own: pictures of any size, padded to the largest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_towers import tiny
from engine_plugin_towers.idefics2 import grid_cells
from engine_plugin_towers.plugin import engine_architectures
from torch import Tensor
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from sdk.testing.reference import assert_close, load_reference

RECORDS = engine_architectures()
GRIDS = [(4, 4), (1, 1), (1, 7), (9, 2), (3, 5)]
"""Rows and columns of patches of 8 pixels; the learned grid is 4 by 4."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("idefics2")
    tiny.idefics2(0, path)
    return path


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    # transformers exports no name for it, so load_hf does not find it.
    return Idefics2VisionTransformer.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def padded() -> tuple[Tensor, Tensor]:
    rows, columns = (max(grid[i] for grid in GRIDS) for i in (0, 1))
    pixels = torch.randn(len(GRIDS), 3, rows * 8, columns * 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(len(GRIDS), rows, columns, dtype=torch.bool)
    for own, (height, width) in zip(mask, GRIDS, strict=True):
        own[:height, :width] = True
    return pixels, mask


def test_padded_pictures_equal_hf_where_they_are_their_own(
    folder: Path, hf: Any, padded: tuple[Tensor, Tensor]
) -> None:
    ours, asked = load_reference(folder, RECORDS), [-1, 0, 2, -3, 3]
    seen = padded[1].flatten(1)
    with torch.inference_mode():
        theirs = hf(*padded, output_hidden_states=True)
        for layer, state in zip(asked, ours(*padded, layers=asked), strict=True):
            assert_close(state[seen], theirs.hidden_states[layer][seen])
        assert_close(ours(*padded)[seen], theirs.last_hidden_state[seen])


def test_a_padded_picture_is_the_picture_alone(folder: Path, padded: tuple[Tensor, Tensor]) -> None:
    ours, (pixels, mask) = load_reference(folder, RECORDS), padded
    together = ours(pixels, mask)
    for i, (rows, columns) in enumerate(GRIDS):
        alone = ours(pixels[i : i + 1, :, : rows * 8, : columns * 8])
        assert_close(together[i][mask[i].flatten()], alone[0], 1e-5)


def test_without_a_mask_every_patch_is_the_pictures_own(folder: Path, hf: Any) -> None:
    x = torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert_close(load_reference(folder, RECORDS)(x), hf(x).last_hidden_state)


@pytest.mark.parametrize("cells", [1, 3, 7, 14, 27, 70])
def test_the_cells_are_those_of_the_exact_fractions_or_the_one_before(cells: int) -> None:
    """Exactly, patch i of n lies in the cell floor(i * cells / n); in float32, on a border, it may miss it by one."""
    for count in range(1, 90):
        found = grid_cells(torch.tensor([count]), count, cells)[0].tolist()
        exact = [i * cells // count for i in range(count)]
        assert all(
            f == e or (f in (e - 1, e + 1) and i * cells % count == 0) for i, (f, e) in enumerate(zip(found, exact))
        )


def test_a_mask_of_another_shape_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"patch_attention_mask is \(1, 4, 5\), the patches are \(1, 4, 4\)"):
        load_reference(folder, RECORDS)(torch.zeros(1, 3, 32, 32), torch.ones(1, 4, 5))

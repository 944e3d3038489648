"""Pictures that a caller has processed or embedded: what is wrong with them is said before anything is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from sdk.errors import InvalidRequestError, MediaUnsupportedError

PATCHES = ("pixel_values", "image_patches")
"""What HF's processor calls the patches, `(patches, patch pixels)`: now, and before."""
GRID = "image_grid_hw"
"""What this plugin calls a picture's rows and columns of patches, `(pictures, 2)`."""
_PARAM = "multi_modal_data.image"


def check_given(pictures: Any) -> None:
    """Check a mapping of processed tensors; whatever else stands for pictures is let through.

    Raises:
        InvalidRequestError: Patches or the grid are missing, of another form, or do not agree.
    """
    if not isinstance(pictures, Mapping) or not pictures or pictures.get("image_embeds") is not None:
        return
    names = [name for name in PATCHES if name in pictures]
    patches, grid = pictures.get(names[0]) if names else None, pictures.get(GRID)
    if len(names) != 1 or not isinstance(patches, Tensor) or not patches.is_floating_point() or patches.ndim != 2:
        raise InvalidRequestError(
            f"a processed picture is a float tensor {' or '.join(PATCHES)} of (patches, patch pixels), as HF makes it",
            param=_PARAM,
        )
    if not isinstance(grid, Tensor) or grid.is_floating_point() or tuple(grid.shape) != (1, 2):
        raise InvalidRequestError(
            f"a processed picture needs {GRID}, an integer tensor [[rows, columns]]: its patches do not tell its shape",
            param=_PARAM,
        )
    rows, columns = grid[0].tolist()
    if min(rows, columns) < 1 or rows * columns != len(patches):
        raise InvalidRequestError(
            f"{GRID} says {rows} rows and {columns} columns, but there are {len(patches)} patches", param=_PARAM
        )


def refuse_embeddings() -> NoReturn:
    """Embeddings of a picture are not enough.

    Raises:
        MediaUnsupportedError: Always.
    """
    raise MediaUnsupportedError(
        "this model writes a picture's rows and columns into the prompt, and embeddings do not tell them: give the picture, "
        f"or its patches with {GRID}",
        code="unsupported_modality",
        param=_PARAM,
    )

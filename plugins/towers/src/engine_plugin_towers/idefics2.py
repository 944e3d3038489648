"""The vision transformer of Idefics2 (Laurençon et al. 2024): SigLIP's blocks over pictures of any size and shape.

Positions are those of a learned square grid: each patch takes the cell in which it lies when its picture is stretched over
the grid (after NaViT, Dehghani et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk import Encoder, ModelContext, WeightMap
from sdk.layers import LayerNorm

from .vit import PatchEmbedding, VisionEncoder

BELOW_ONE = 1.0 - 1e-6
"""The largest place along a side, as transformers has it."""


def grid_cells(counts: Tensor, length: int, cells: int) -> Tensor:
    """The cells of the learned grid, along one side, that the patches of each picture lie in.

    Args:
        counts: `(items,)`, how many patches each picture has along the side.
        length: For how many patches to tell it; what lies beyond a picture's own means nothing.
        cells: How many cells the grid has along the side.

    Returns:
        `(items, length)` int, from 0 to `cells - 1`.
    """
    # On the borders of cells the rounding of float32 decides, so each step is the one that transformers takes.
    borders = torch.arange(1 / cells, 1.0, 1 / cells, device=counts.device)
    steps = torch.arange(length, device=counts.device, dtype=torch.float32)
    places = (steps[None, :] * (1.0 / counts)[:, None]).clamp(max=BELOW_ONE)
    return torch.bucketize(places, borders, right=True)


class Idefics2VisionEmbeddings(nn.Module):
    """Patches and the positions of their cells: `(items, channels, height, width) -> (items, patches, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.cells = config.image_size // config.patch_size
        self.patch_embedding = PatchEmbedding(config.num_channels, config.hidden_size, config.patch_size, bias=True)
        self.position_embedding = nn.Embedding(self.cells**2, config.hidden_size)

    def forward(self, pixel_values: Tensor, mask: Tensor) -> Tensor:
        _, rows, columns = mask.shape
        by_row = grid_cells(mask[:, :, 0].sum(dim=1), rows, self.cells)
        by_column = grid_cells(mask[:, 0, :].sum(dim=1), columns, self.cells)
        positions = by_row[:, :, None] * self.cells + by_column[:, None, :]
        learned = F.embedding(positions.where(mask, 0).flatten(1), self.position_embedding.weight)
        out: Tensor = self.patch_embedding(pixel_values) + learned
        return out


class Idefics2VisionTransformer(Encoder):
    """The tower of Idefics2 and of the models that took it over."""

    weight_map = WeightMap(drop=[r"^embeddings\.position_ids$"])

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.embeddings = Idefics2VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self,
        pixel_values: Tensor,
        patch_attention_mask: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> Tensor | list[Tensor]:
        """The normalised output of the last layer, or the states of each of `layers` as they are.

        Args:
            pixel_values: `(items, channels, height, width)`, normalised; smaller pictures are padded at the right and at
                the bottom.
            patch_attention_mask: `(items, rows, columns)` bool: which patches are the picture's own; `None`: all.
            layers: 0 is the embedding, `i` the output of the `i`-th layer, -1 that of the last, before the last norm.

        Returns:
            `(items, patches, hidden)`, or a list of them in the order of `layers`; what stands at padding means nothing.
        """
        grid = self.embeddings.patch_embedding.grid(pixel_values)
        shape = (len(pixel_values), *grid)
        if patch_attention_mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=pixel_values.device)
        elif tuple(patch_attention_mask.shape) == shape:
            mask = patch_attention_mask.bool()
        else:
            raise ValueError(f"patch_attention_mask is {tuple(patch_attention_mask.shape)}, the patches are {shape}")
        seen = None if patch_attention_mask is None else mask.flatten(1)
        states: list[Tensor] = self.encoder(self.embeddings(pixel_values, mask), layers, seen)
        return self.post_layernorm(states[0]) if layers is None else states

"""LLaVA-NeXT, or 1.6 (Liu et al. 2024): the tower sees the whole picture, and then tiles of it in a higher resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdk import ModelContext

from .base import LlavaBase
from .tiling import Size, Tiling


class LlavaNextForConditionalGeneration(LlavaBase):
    """LLaVA-NeXT. Between the lines of the tiles' patches stands a learned embedding."""

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config, vision = ctx.hf_config, ctx.hf_config.vision_config
        self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size), requires_grad=False)
        self.tiling = Tiling.of(config.image_grid_pinpoints, vision.image_size, vision.patch_size)

    def get_multimodal_embeddings(
        self, pixel_values: Tensor | Sequence[Tensor], image_sizes: Tensor | Sequence[Tensor]
    ) -> list[Tensor]:
        """Encode pictures.

        Args:
            pixel_values: `(items, 1 + tiles, channels, side, side)`, or where their numbers differ one tensor for each
                picture; the whole picture comes first.
            image_sizes: `(items, 2)` int, the pictures' own heights and widths.

        Returns:
            One `(n_i, hidden)` for each picture: the whole of it, and then the tiles line by line.
        """
        pictures = list(pixel_values)
        features = self.project(torch.cat(pictures)).split([len(tiles) for tiles in pictures])
        sizes = [(int(height), int(width)) for height, width in image_sizes]
        return [self._in_lines(part, size) for part, size in zip(features, sizes, strict=True)]

    def _in_lines(self, features: Tensor, size: Size) -> Tensor:
        """One picture's features `(1 + tiles, n, hidden)` in the order of the prompt: `(n_i, hidden)`."""
        (rows, columns), patches = self.tiling.grid(size), self.tiling.patches
        whole, tiles = features[0], features[1:]
        if tiles.shape[:2] != (rows * columns, patches**2):
            raise ValueError(
                f"a picture of {size[1]} by {size[0]} pixels has {rows} by {columns} tiles of {patches} by {patches} "
                f"patches, but the tower gave {tiles.shape[0]} tiles of {tiles.shape[1]}: image_grid_pinpoints of "
                "processor and config differ, or vision_feature_select_strategy and the tower's class token do"
            )
        lines = tiles.view(rows, columns, patches, patches, -1).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        kept = lines[self.tiling.kept(size)]
        ends = self.image_newline.expand(len(kept), 1, -1)
        return torch.cat((whole, torch.cat((kept, ends), dim=1).flatten(0, 1)))

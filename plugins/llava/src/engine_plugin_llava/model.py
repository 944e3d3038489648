"""LLaVA 1.5 (Liu et al. 2023): a picture is one picture to its tower, whole."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import LlavaBase


class LlavaForConditionalGeneration(LlavaBase):
    """LLaVA, and what shares its architecture: over CLIP, over SigLIP, and over Pixtral's tower for pictures of any size."""

    def get_multimodal_embeddings(
        self, pixel_values: Tensor | Sequence[Tensor], image_sizes: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Encode pictures.

        Args:
            pixel_values: `(items, channels, height, width)`, or where sizes differ one `(channels, height, width)` each.
            image_sizes: `(items, 2)` of a tower that takes any size; the processor has cut the pictures to them already.

        Returns:
            `(items, n, hidden)`, or one `(n_i, hidden)` for each picture.
        """
        if isinstance(pixel_values, Tensor):
            return self.project(pixel_values)
        return [self.project(picture[None])[0] for picture in pixel_values]

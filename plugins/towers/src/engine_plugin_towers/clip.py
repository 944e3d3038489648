"""The picture half of CLIP (Radford et al. 2021): a vision transformer over square patches and a class token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdk import Encoder, ModelContext, WeightMap
from sdk.layers import LayerNorm

from .vit import PatchEmbedding, VisionEncoder, require_size


class CLIPVisionEmbeddings(nn.Module):
    """Class token, patches, learned positions: `(items, channels, height, width) -> (items, 1 + patches, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.image_size = config.image_size
        patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nn.Parameter(torch.empty(config.hidden_size), requires_grad=False)
        self.patch_embedding = PatchEmbedding(config.num_channels, config.hidden_size, config.patch_size)
        self.position_embedding = nn.Embedding(1 + patches, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        require_size("CLIP", pixel_values, self.image_size)
        patches = self.patch_embedding(pixel_values)
        classes = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat((classes, patches), dim=1) + self.position_embedding.weight


class CLIPVisionModel(Encoder):
    """CLIP's vision transformer. The last norm serves `pool` alone, as in HF."""

    weight_map = WeightMap(rename=[(r"^vision_model\.", "")], drop=[r"^embeddings\.position_ids$"])

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixel_values: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Hidden states of the last layer, or of each of `layers`.

        Args:
            pixel_values: `(items, channels, image_size, image_size)`, normalised.
            layers: 0 is the embedding after its norm, `i` the output of the `i`-th layer, -1 that of the last.

        Returns:
            `(items, 1 + patches, hidden)`, or a list of them in the order of `layers`; the class token comes first.
        """
        states: list[Tensor] = self.encoder(self.pre_layrnorm(self.embeddings(pixel_values)), layers)
        return states[0] if layers is None else states

    def pool(self, hidden_states: Tensor) -> Tensor:
        """The picture as one vector, from the last layer's output: `(items, n, hidden) -> (items, hidden)`."""
        out: Tensor = self.post_layernorm(hidden_states[:, 0])
        return out

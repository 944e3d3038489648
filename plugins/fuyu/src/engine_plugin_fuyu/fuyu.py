"""Fuyu (Bavishi et al. 2023): a language model that reads the patches of a picture through one linear layer, with no tower.

The language model is a matter of config; published checkpoints have Persimmon.
"""

from __future__ import annotations

from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsMultiModal, WeightMap
from sdk.layers import ReplicatedLinear


class FuyuForCausalLM(Model, SupportsMultiModal):
    """Patches become embeddings, row by row of the picture; a newline token ends each row."""

    # As published: `language_model.model.…` and `language_model.lm_head`. Later transformers leave the inner `model` out, or
    # put everything but the head under an outer one.
    weight_map = WeightMap(
        rename=[
            (r"^model\.(vision_embed_tokens|language_model)\.", r"\1."),
            (r"^lm_head\.", "language_model.lm_head."),
            (r"^language_model\.(?!model\.|lm_head\.)", "language_model.model."),
        ]
    )

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        patch_pixels = config.patch_size**2 * config.num_channels
        self.vision_embed_tokens = ReplicatedLinear(patch_pixels, config.text_config.hidden_size)
        self.language_model = ctx.build(ctx.text_config(), role="causal-lm", prefix="language_model")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "image":
            raise ValueError(f"Fuyu takes pictures, not {modality}")
        return None

    def get_language_model(self) -> nn.Module:
        return self.language_model

    def get_multimodal_embeddings(
        self, image_grid_hw: Tensor, pixel_values: Tensor | None = None, image_patches: Tensor | None = None
    ) -> list[Tensor]:
        """Embed the patches of pictures of any sizes.

        Args:
            image_grid_hw: `(pictures, 2)`, each one's rows and columns of patches.
            pixel_values: `(patches of all pictures, patch pixels)`.
            image_patches: The same, under its former name.

        Returns:
            For each picture `(rows * columns, hidden)`.
        """
        patches = image_patches if pixel_values is None else pixel_values
        return list(self.vision_embed_tokens(patches).split(image_grid_hw.prod(dim=-1).tolist()))

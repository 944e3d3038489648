"""A vision tower, a projector and a language model; the tower sees a picture whole and in tiles (LLaVA-NeXT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsMultiModal, WeightMap
from sdk.layers import Activation, ColumnParallelLinear, RowParallelLinear


class Projector(nn.Module):
    """Two linear layers, from the tower's width to the language model's: `(…, vision) -> (…, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, bias = config.text_config.hidden_size, config.multimodal_projector_bias
        self.linear_1 = ColumnParallelLinear(config.vision_config.hidden_size, hidden, bias=bias)
        self.act = Activation(config.projector_hidden_act)
        self.linear_2 = RowParallelLinear(hidden, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(x)))


class SoundForConditionalGeneration(Model, SupportsMultiModal):
    """Sees pictures as rows of embeddings: the whole picture's, then those of its tiles, line by line."""

    weight_map = WeightMap(
        rename=[
            (r"^model\.(vision_tower|multi_modal_projector|image_newline)(?=\.|$)", r"\1"),
            (r"^model\.language_model\.", "language_model.model."),
            (r"^lm_head\.", "language_model.lm_head."),
        ]
    )

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.vision_tower = ctx.build(config.vision_config, role="vision-encoder", prefix="vision_tower")
        self.multi_modal_projector = Projector(config)
        self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size), requires_grad=False)
        self.language_model = ctx.build(ctx.text_config(), role="causal-lm", prefix="language_model")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "image":
            raise ValueError(f"takes pictures, not {modality}")
        return "<image>"

    def get_language_model(self) -> nn.Module:
        return self.language_model

    def get_multimodal_embeddings(
        self, pixel_values: Tensor | Sequence[Tensor], image_sizes: Tensor | Sequence[Tensor]
    ) -> list[Tensor]:
        """Pictures of `(1 + tiles, channels, side, side)` each → their embeddings `(n_i, hidden)`."""
        counts = [len(tiles) for tiles in pixel_values]
        (features,) = self.vision_tower(torch.cat(list(pixel_values)), layers=[self.config.vision_feature_layer])
        projected = self.multi_modal_projector(features[:, 1:])  # the first is the tower's class token
        return [self.in_lines(part, size) for part, size in zip(projected.split(counts), image_sizes)]

    def in_lines(self, features: Tensor, size: Tensor) -> Tensor:
        """One picture's features `(1 + tiles, n, hidden)` in the order of the prompt: `(n_i, hidden)`."""
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

        side = self.config.vision_config.image_size
        rows, columns = get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, side)
        patches = side // self.config.vision_config.patch_size
        tiles = features[1:].view(rows, columns, patches, patches, -1).permute(4, 0, 2, 1, 3)
        kept = unpad_image(tiles.flatten(3, 4).flatten(1, 2), size).permute(1, 2, 0)
        ends = self.image_newline.expand(len(kept), 1, -1)
        return torch.cat((features[0], torch.cat((kept, ends), dim=1).flatten(0, 1)))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: dict[str, Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        return self.language_model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return self.language_model.compute_logits(hidden_states)

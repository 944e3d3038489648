"""BLIP-2 (Li et al. 2023): between a frozen tower and a frozen language model, queries that read the one for the other."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsMultiModal, WeightMap
from sdk.layers import ReplicatedLinear

from .qformer import QFormer
from .vision import Blip2VisionModel


class Blip2ForConditionalGeneration(Model, SupportsMultiModal):
    """BLIP-2 over a decoder, such as OPT, that another plugin brings."""

    weight_map = WeightMap(
        rename=[
            (r"^vision_model\.encoder\.", "vision_model."),
            (r"^qformer\.encoder\.layer\.", "qformer.layers."),
            (r"^(qformer\..+\.(?:cross)?attention)\.attention\.", r"\1."),
            (r"^(qformer\..+\.(?:cross)?attention)\.output\.dense\.", r"\1.output."),
            (r"^(qformer\..+\.(?:cross)?attention)\.output\.LayerNorm\.", r"\1.norm."),
            (r"^(qformer\..+)\.intermediate_query\.dense\.", r"\1.mlp.fc1."),
            (r"^(qformer\..+)\.output_query\.dense\.", r"\1.mlp.fc2."),
            (r"^(qformer\..+)\.output_query\.LayerNorm\.", r"\1.norm."),
        ],
        # The Q-Former's way for texts, of its first training, and BERT's table of words beside it.
        drop=[r"^qformer\.layers\.\d+\.(intermediate|output)\.", r"^qformer\.(embeddings|cls)\."],
    )

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config, queries = ctx.hf_config, ctx.hf_config.qformer_config
        self.vision_model = Blip2VisionModel(ctx=replace(ctx, hf_config=config.vision_config), prefix="vision_model")
        self.query_tokens = nn.Parameter(
            torch.empty(1, config.num_query_tokens, queries.hidden_size), requires_grad=False
        )
        self.qformer = QFormer(queries)
        self.language_projection = ReplicatedLinear(queries.hidden_size, config.text_config.hidden_size)
        self.language_model = ctx.build(config.text_config, role="causal-lm", prefix="language_model")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "image":
            raise ValueError(f"BLIP-2 takes pictures, not {modality}")
        return ""  # the picture stands before the whole prompt

    def get_language_model(self) -> nn.Module:
        return self.language_model

    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        """`(items, channels, side, side) -> (items, queries, hidden)`."""
        picture = self.vision_model(pixel_values)
        queries = self.query_tokens.expand(len(picture), -1, -1)
        return self.language_projection(self.qformer(queries, picture))

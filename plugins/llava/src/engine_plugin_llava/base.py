"""What LLaVA and LLaVA-NeXT share: a vision tower, a two-layer projector and a language model (Liu et al. 2023).

Which tower and which language model is a matter of the config; both come from other plugins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsMultiModal, WeightMap
from sdk.layers import Activation, ColumnParallelLinear, RowParallelLinear


class LlavaMultiModalProjector(nn.Module):
    """`linear_2(act(linear_1(x)))`: `(items, n, features) -> (items, n, hidden)`."""

    def __init__(self, config: Any, num_features: int) -> None:
        super().__init__()
        hidden_size, bias = config.text_config.hidden_size, config.multimodal_projector_bias
        self.linear_1 = ColumnParallelLinear(num_features, hidden_size, bias)
        self.act = Activation(config.projector_hidden_act)
        self.linear_2 = RowParallelLinear(hidden_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(self.act(self.linear_1(x)))
        return out


class LlavaBase(Model, SupportsMultiModal):
    """Pictures become embeddings that stand among the prompt's where its picture tokens are.

    A subclass writes `get_multimodal_embeddings`.
    """

    # Published checkpoints name the parts at the top; transformers 4.52 and later may put them under `model`.
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
        layers = config.vision_feature_layer
        self.feature_layers = [layers] if isinstance(layers, int) else list(layers)
        self.drop_class_token = config.vision_feature_select_strategy == "default"
        self.vision_tower = ctx.build(config.vision_config, role="vision-encoder", prefix="vision_tower")
        self.multi_modal_projector = LlavaMultiModalProjector(
            config, config.vision_config.hidden_size * len(self.feature_layers)
        )
        self.language_model = ctx.build(ctx.text_config(plain_head=True), role="causal-lm", prefix="language_model")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "image":
            raise ValueError(f"LLaVA takes pictures, not {modality}")
        return None  # `<image>` or `[IMG]`: the checkpoint's processor says it, and with it the dummy text

    def get_language_model(self) -> nn.Module:
        return self.language_model

    def project(self, pixel_values: Tensor) -> Tensor:
        """Pictures of one size through tower and projector: `(items, channels, height, width) -> (items, n, hidden)`."""
        features = torch.cat(self.vision_tower(pixel_values, layers=self.feature_layers), dim=-1)
        if self.drop_class_token:
            features = features[:, 1:]
        out: Tensor = self.multi_modal_projector(features)
        return out

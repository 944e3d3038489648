"""The tower: a vision transformer over square patches and a class token, with a norm at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdk import Encoder, ModelContext
from sdk.layers import (
    MLP,
    EncoderAttention,
    LayerNorm,
    QKVParallelLinear,
    RowParallelLinear,
)


class Blip2VisionEmbeddings(nn.Module):
    """Class token, patches, learned positions: `(items, channels, height, width) -> (items, 1 + patches, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, patch, self.side = config.hidden_size, config.patch_size, config.image_size
        self.class_embedding = nn.Parameter(torch.empty(1, 1, hidden), requires_grad=False)
        self.patch_embedding = nn.Conv2d(3, hidden, patch, stride=patch)
        self.position_embedding = nn.Parameter(
            torch.empty(1, 1 + (self.side // patch) ** 2, hidden), requires_grad=False
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        height, width = pixel_values.shape[-2:]
        if (height, width) != (self.side, self.side):
            raise ValueError(
                f"this tower takes pictures of {self.side} by {self.side} pixels, not {width} by {height}; leave the size "
                "of the image processor as the checkpoint has it"
            )
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        classes = self.class_embedding.expand(len(patches), -1, -1)
        return torch.cat((classes, patches), dim=1) + self.position_embedding


class Blip2VisionAttention(nn.Module):
    """Attention over the patches of one picture: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, hidden = config.num_attention_heads, config.hidden_size
        self.qkv = QKVParallelLinear(hidden, hidden // heads, heads, bias=config.qkv_bias)
        self.attn = EncoderAttention(heads, hidden // heads)
        self.projection = RowParallelLinear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.attn(*self.qkv(x)))


class Blip2VisionLayer(nn.Module):
    """One pre-norm block: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Blip2VisionAttention(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Blip2VisionModel(Encoder):
    """The whole tower. Its norm is over all rows, not over the class token alone."""

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.embeddings = Blip2VisionEmbeddings(config)
        self.layers = nn.ModuleList(Blip2VisionLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixel_values: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """The last layer's states after the norm, `(items, 1 + patches, hidden)`; see `sdk.Encoder.forward` for `layers`."""
        states = [self.embeddings(pixel_values)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return self.post_layernorm(states[-1]) if layers is None else [states[i] for i in layers]

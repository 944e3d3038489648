"""The picture half of CLIP (Radford et al. 2021): a vision transformer over square patches and a class token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk import Encoder, ModelContext, WeightMap
from sdk.layers import (
    Activation,
    ColumnParallelLinear,
    EncoderAttention,
    LayerNorm,
    QKVParallelLinear,
    RowParallelLinear,
)


class PatchEmbedding(nn.Module):
    """A linear map of each patch's pixels, which is a convolution whose stride is its size.

    Shapes: `(items, channels, height, width) -> (items, patches, hidden)`, patches row by row.
    """

    def __init__(self, channels: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(hidden_size, channels, patch_size, patch_size), requires_grad=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        size = self.patch_size
        patches = pixel_values.unfold(2, size, size).unfold(3, size, size)
        return F.linear(patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2), self.weight.flatten(1))


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
        height, width = pixel_values.shape[-2:]
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"this CLIP tower takes pictures of {self.image_size} by {self.image_size} pixels, not {width} by "
                f"{height}; leave size and crop_size of the image processor as the checkpoint has them"
            )
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        classes = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat((classes, patches), dim=1) + self.position_embedding.weight


class CLIPAttention(nn.Module):
    """Multi-head attention without a mask: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads = config.num_attention_heads
        head_dim = config.hidden_size // heads
        self.qkv_proj = QKVParallelLinear(config.hidden_size, head_dim, heads)
        self.attn = EncoderAttention(heads, head_dim)
        self.out_proj = RowParallelLinear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.out_proj(self.attn(q, k, v))


class CLIPMLP(nn.Module):
    """`fc2(act(fc1(x)))`: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.fc1 = ColumnParallelLinear(config.hidden_size, config.intermediate_size)
        self.activation_fn = Activation(config.hidden_act)
        self.fc2 = RowParallelLinear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(x)))


class CLIPEncoderLayer(nn.Module):
    """One pre-norm block: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers))


class CLIPVisionModel(Encoder):
    """CLIP's vision transformer. The last norm serves `pool` alone, as in HF."""

    weight_map = WeightMap(rename=[(r"^vision_model\.", "")], drop=[r"^embeddings\.position_ids$"])

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixel_values: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Hidden states of the last layer, or of each of `layers`.

        Args:
            pixel_values: `(items, channels, image_size, image_size)`, normalised.
            layers: 0 is the embedding after its norm, `i` the output of the `i`-th layer, -1 that of the last.

        Returns:
            `(items, 1 + patches, hidden)`, or a list of them in the order of `layers`; the class token comes first.
        """
        count = len(self.encoder.layers)
        wanted = [self._index(i, count) for i in ([count] if layers is None else layers)]
        x = self.pre_layrnorm(self.embeddings(pixel_values))
        states = {0: x}
        for i in range(1, max(wanted, default=0) + 1):
            x = self.encoder.layers[i - 1](x)
            if i in wanted:
                states[i] = x
        return states[count] if layers is None else [states[i] for i in wanted]

    def pool(self, hidden_states: Tensor) -> Tensor:
        """The picture as one vector, from the last layer's output: `(items, n, hidden) -> (items, hidden)`."""
        return self.post_layernorm(hidden_states[:, 0])

    @staticmethod
    def _index(layer: int, count: int) -> int:
        if not -count - 1 <= layer <= count:
            raise ValueError(
                f"this tower has {count} layers, so its states are {-count - 1} to {count}; asked for {layer}"
            )
        return layer if layer >= 0 else layer + count + 1

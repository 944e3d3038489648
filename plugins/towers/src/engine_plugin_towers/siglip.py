"""The picture half of SigLIP (Zhai et al. 2023): a vision transformer over square patches, without a class token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdk import Encoder, ModelContext, WeightMap
from sdk.layers import MLP, EncoderAttention, LayerNorm, QKVParallelLinear, RowParallelLinear

from .vit import PatchEmbedding, VisionEncoder, require_size


class SiglipVisionEmbeddings(nn.Module):
    """Patches and learned positions: `(items, channels, height, width) -> (items, patches, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.image_size = config.image_size
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = PatchEmbedding(config.num_channels, config.hidden_size, config.patch_size, bias=True)
        self.position_embedding = nn.Embedding(patches, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        require_size("SigLIP", pixel_values, self.image_size)
        out: Tensor = self.patch_embedding(pixel_values) + self.position_embedding.weight
        return out


class ProbeAttention(nn.Module):
    """Attention of a few queries over a picture's patches: `(items, m, hidden), (items, n, hidden) -> (items, m, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads = config.num_attention_heads
        head_dim = config.hidden_size // heads
        self.qkv_proj = QKVParallelLinear(config.hidden_size, head_dim, heads)
        self.attn = EncoderAttention(heads, head_dim)
        self.out_proj = RowParallelLinear(config.hidden_size, config.hidden_size)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        q, _, _ = self.qkv_proj(queries)
        _, k, v = self.qkv_proj(x)
        out: Tensor = self.out_proj(self.attn(q, k, v))
        return out


class SiglipPoolingHead(nn.Module):
    """A learned probe that looks at every patch: `(items, n, hidden) -> (items, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size), requires_grad=False)
        self.attention = ProbeAttention(config)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        found = self.attention(self.probe.expand(len(x), 1, -1), x)
        out: Tensor = found + self.mlp(self.layernorm(found))
        return out[:, 0]


class SiglipVisionModel(Encoder):
    """SigLIP's vision transformer; the pooling head is there where the config has `vision_use_head`."""

    # The head's three projections are stored fused, in the order of QKVParallelLinear.
    weight_map = WeightMap(
        rename=[(r"^vision_model\.", ""), (r"^head\.attention\.in_proj_", "head.attention.qkv_proj.")],
        drop=[r"^embeddings\.position_ids$"],
    )

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.embeddings = SiglipVisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.head = SiglipPoolingHead(config) if config.vision_use_head else None

    def forward(self, pixel_values: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """The normalised output of the last layer, or the states of each of `layers` as they are.

        Args:
            pixel_values: `(items, channels, image_size, image_size)`, normalised.
            layers: 0 is the embedding, `i` the output of the `i`-th layer, -1 that of the last, before the last norm.

        Returns:
            `(items, patches, hidden)`, or a list of them in the order of `layers`.
        """
        states: list[Tensor] = self.encoder(self.embeddings(pixel_values), layers)
        return self.post_layernorm(states[0]) if layers is None else states

    def pool(self, hidden_states: Tensor) -> Tensor:
        """The picture as one vector, from what `forward` gives: `(items, n, hidden) -> (items, hidden)`.

        Raises:
            ValueError: The config says that the checkpoint has no pooling head.
        """
        if self.head is None:
            raise ValueError("this SigLIP tower has no pooling head: its config says vision_use_head=false")
        out: Tensor = self.head(hidden_states)
        return out

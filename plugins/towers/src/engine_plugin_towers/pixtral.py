"""Pixtral's vision transformer (Agrawal et al. 2024): pictures of any size, and positions as rotations in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdk import Encoder, ModelContext
from sdk.layers import EncoderAttention, GatedMLP, QKVParallelLinear, RMSNorm, RowParallelLinear
from sdk.layers.rotary import rope_parameters, rotate

from .vit import PatchEmbedding, hidden_states

EPS = 1e-5
"""Of every norm; no config says it."""


class PatchRotary(nn.Module):
    """Half of the frequencies of a head turn with the patch's row, the others, between them, with its column."""

    inv_freq: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        head_dim = config.hidden_size // config.num_attention_heads
        if head_dim % 4:
            raise ValueError(f"rotation by row and column needs a head_dim that 4 divides, not {head_dim}")
        # Models are built on the meta device; what is computed here must be real all the same.
        with torch.device("cpu"):
            exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
            inv_freq = 1.0 / (rope_parameters(config)["rope_theta"] ** exponents)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of a picture's patches, row by row: `(rows * columns, head_dim / 2)` each, float32."""
        positions = torch.arange(max(rows, columns), device=self.inv_freq.device).float()
        by_row = torch.outer(positions[:rows], self.inv_freq[0::2]).repeat_interleave(columns, dim=0)
        by_column = torch.outer(positions[:columns], self.inv_freq[1::2]).repeat(rows, 1)
        angles = torch.cat((by_row, by_column), dim=-1)
        return angles.cos(), angles.sin()


class PixtralAttention(nn.Module):
    """Multi-head attention over the patches of one picture: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads = config.num_attention_heads
        head_dim = config.hidden_size // heads
        self.qkv_proj = QKVParallelLinear(config.hidden_size, head_dim, heads, bias=False)
        self.attn = EncoderAttention(heads, head_dim)
        self.o_proj = RowParallelLinear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        q, k = rotate(q, cos, sin, interleaved=False), rotate(k, cos, sin, interleaved=False)
        out: Tensor = self.o_proj(self.attn(q, k, v))
        return out


class PixtralAttentionLayer(nn.Module):
    """One pre-norm block: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, EPS)
        self.attention = PixtralAttention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, EPS)
        self.feed_forward = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class PixtralTransformer(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PixtralAttentionLayer(config) for _ in range(config.num_hidden_layers))


class PixtralVisionModel(Encoder):
    """Pixtral's vision transformer. A patch sees the patches of its own picture and no others; there is no last norm.

    transformers lays the patches of all pictures end to end behind a block mask; here pictures of one size are a batch.
    """

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.patch_conv = PatchEmbedding(config.num_channels, config.hidden_size, config.patch_size)
        self.ln_pre = RMSNorm(config.hidden_size, EPS)
        self.transformer = PixtralTransformer(config)
        self.patch_positional_embedding = PatchRotary(config)

    def forward(self, pixel_values: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Hidden states of the last layer, or of each of `layers`.

        Args:
            pixel_values: `(items, channels, height, width)`, normalised, of any size.
            layers: 0 is the embedding after its norm, `i` the output of the `i`-th layer, -1 that of the last.

        Returns:
            `(items, patches, hidden)`, or a list of them in the order of `layers`; patches row by row.
        """
        rows, columns = self.patch_conv.grid(pixel_values)
        x = self.ln_pre(self.patch_conv(pixel_values))
        cos, sin = (t.to(x.dtype) for t in self.patch_positional_embedding(rows, columns))
        states = hidden_states(self.transformer.layers, x, layers, cos, sin)
        return states[0] if layers is None else states

"""What the vision transformers of this plugin share: patches, pre-norm blocks, and hidden states by the layer's number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk.layers import (
    MLP,
    EncoderAttention,
    LayerNorm,
    QKVParallelLinear,
    RowParallelLinear,
)


class PatchEmbedding(nn.Module):
    """A linear map of each patch's pixels, which is a convolution whose stride is its size.

    Pixels that fill no patch, at the right and at the bottom, are left out.

    Shapes: `(items, channels, height, width) -> (items, patches, hidden)`, patches row by row.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, hidden_size: int, patch_size: int, bias: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        shape = (hidden_size, channels, patch_size, patch_size)
        self.weight = nn.Parameter(torch.empty(shape), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(hidden_size), requires_grad=False) if bias else None)

    def grid(self, pixel_values: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = pixel_values.shape[-2:]
        if min(height, width) < self.patch_size:
            raise ValueError(f"a picture of {width} by {height} pixels has no patch of {self.patch_size} pixels a side")
        return height // self.patch_size, width // self.patch_size

    def forward(self, pixel_values: Tensor) -> Tensor:
        size = self.patch_size
        patches = pixel_values.to(self.weight.dtype).unfold(2, size, size).unfold(3, size, size)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return F.linear(rows, self.weight.flatten(1), self.bias)


class VisionAttention(nn.Module):
    """Multi-head attention over the patches of one picture.

    Shapes: x `(items, n, hidden)`, mask `(items, n)` bool, true for the patches that are seen → `(items, n, hidden)`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads = config.num_attention_heads
        head_dim = config.hidden_size // heads
        self.qkv_proj = QKVParallelLinear(config.hidden_size, head_dim, heads)
        self.attn = EncoderAttention(heads, head_dim)
        self.out_proj = RowParallelLinear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv_proj(x)
        out: Tensor = self.out_proj(self.attn(q, k, v, mask))
        return out


class VisionEncoderLayer(nn.Module):
    """One pre-norm block; shapes as those of `VisionAttention`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn = VisionAttention(config)
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, layers: Sequence[int] | None, mask: Tensor | None = None) -> list[Tensor]:
        """See `hidden_states`."""
        return hidden_states(self.layers, x, layers, mask)


def hidden_states(blocks: Iterable[nn.Module], x: Tensor, layers: Sequence[int] | None, *args: Any) -> list[Tensor]:
    """The states after the blocks that are asked for, without computing later ones.

    Args:
        blocks: Called as `block(x, *args)`.
        x: `(items, n, hidden)`, what the first block takes: state 0.
        layers: `i` is the state after the `i`-th block, -1 that after the last; `None` stands for `[-1]`.
        args: What every block takes besides.

    Returns:
        The states, in the order of `layers`.
    """
    stack = list(blocks)
    wanted = [_index(i, len(stack)) for i in ([-1] if layers is None else layers)]
    states = {0: x}
    for i in range(1, max(wanted, default=0) + 1):
        x = stack[i - 1](x, *args)
        if i in wanted:
            states[i] = x
    return [states[i] for i in wanted]


def _index(layer: int, count: int) -> int:
    if not -count - 1 <= layer <= count:
        raise ValueError(f"this tower has {count} layers, so its states are {-count - 1} to {count}; asked for {layer}")
    return layer if layer >= 0 else layer + count + 1


def require_size(tower: str, pixel_values: Tensor, side: int) -> None:
    """Raise ValueError for pictures of another size than the one whose positions a tower has learned."""
    height, width = pixel_values.shape[-2:]
    if (height, width) != (side, side):
        raise ValueError(
            f"this {tower} tower takes pictures of {side} by {side} pixels, not {width} by {height}; leave size and "
            "crop_size of the image processor as the checkpoint has them"
        )

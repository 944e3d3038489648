"""A convolution over the last few tokens of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Layer


class CausalConv1d(Layer):
    """Depthwise convolution: each channel of a token is a weighted sum of its own last `width` values.

    Args:
        channels: Of `x`.
        width: How many tokens a token sees, itself included.
        bias: Whether there is one.

    Shapes: x `(sequences, n, channels)`, the tokens before `(sequences, width - 1, channels)` → output
    `(sequences, n, channels)`, and the tokens before the next.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, width: int, bias: bool = True, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.channels, self.width = channels, width
        self.weight = nn.Parameter(torch.empty(channels, 1, width), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(channels), requires_grad=False) if bias else None)

    def reference(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        n, seen = x.shape[1], torch.cat((before, x), dim=1)
        # Sums of whole rows: a few of them are quicker than what a general convolution prepares.
        wide, taps = seen.float(), self.weight[:, 0].float().t()
        out = wide[:, :n] * taps[0]
        for k in range(1, self.width):
            out = torch.addcmul(out, wide[:, k : k + n], taps[k])
        if self.bias is not None:
            out = out + self.bias.float()
        return out.to(x.dtype), seen[:, n:]

    def extra_repr(self) -> str:
        return f"{self.channels}, width={self.width}, bias={self.bias is not None}"

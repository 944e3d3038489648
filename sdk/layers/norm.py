"""Normalisation layers, with room for the residual addition that a kernel fuses with them."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Layer


class RMSNorm(Layer):
    """Root-mean-square normalisation (Zhang & Sennrich 2019), computed in float32 as transformers does.

    `norm(x)` returns the normalised tensor. `norm(x, residual)` adds first and returns `(normalised, x + residual)`,
    which is how a pre-norm block threads its residual stream.

    Args:
        hidden_size: Width of `x`.
        eps: Added to the mean square.
        offset: Added to the weight: 1.0 for the families that store `weight - 1`.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6, *, offset: float = 0.0, prefix: str = "") -> None:
        super().__init__(prefix)
        self.hidden_size, self.eps, self.offset = hidden_size, eps, offset
        self.weight = nn.Parameter(torch.empty(hidden_size), requires_grad=False)

    @overload
    def __call__(self, x: Tensor) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, x: Tensor, residual: Tensor | None) -> Tensor | tuple[Tensor, Tensor]: ...
    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        out: Tensor | tuple[Tensor, Tensor] = super().__call__(x, residual)
        return out

    def reference(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if residual is not None:
            x = x + residual
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        out = (
            wide.to(x.dtype) * self.weight
            if not self.offset
            else (wide * (self.weight.float() + self.offset)).to(x.dtype)
        )
        return out if residual is None else (out, x)

    def join(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add a branch's output `x` to the residual stream: the sum normalised, and the sum. Without a stream yet, `x` is it."""
        return (self(x), x) if residual is None else self(x, residual)

    def extra_repr(self) -> str:
        return f"{self.hidden_size}, eps={self.eps}"


class LayerNorm(Layer):
    """Layer normalisation (Ba et al. 2016) over the last dimension.

    Args:
        hidden_size: Width of `x`.
        eps: Added to the variance.
        bias: Whether there is a learned shift.
        affine: Whether there is a learned scale; without one there is no shift either.

    Shapes: `(..., hidden_size) -> (..., hidden_size)`.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, bias: bool = True, *, affine: bool = True, prefix: str = ""
    ) -> None:
        super().__init__(prefix)
        self.hidden_size, self.eps = hidden_size, eps
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            parameter = nn.Parameter(torch.empty(hidden_size), requires_grad=False) if wanted else None
            self.register_parameter(name, parameter)

    def reference(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.hidden_size,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.hidden_size}, eps={self.eps}"

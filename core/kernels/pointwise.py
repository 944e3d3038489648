"""Layer normalisation and activations on a CPU, compiled. The specifications are in `sdk.layers`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sdk.layers import Activation, LayerNorm

from ._pointwise import gelu, layer_norm, sigmoid_product
from .compiled import kind_of

_TANH = 2 * math.sqrt(2 / math.pi)
SIGMOIDS: Mapping[str, tuple[float, float]] = {
    "silu": (1.0, 0.0),
    "swish": (1.0, 0.0),
    "quick_gelu": (1.702, 0.0),
    "gelu_new": (_TANH, _TANH * 0.044715),
    "gelu_pytorch_tanh": (_TANH, _TANH * 0.044715),
}
"""Activations that are x · σ(a · x + b · x³): name → a, b. The tanh form of GELU is one, since (1 + tanh u) / 2 = σ(2u)."""
COST = 4
"""About how many elements copied take as long as an activation of one."""


class CompiledLayerNorm:
    """Fills one `sdk.layers.LayerNorm`; inputs of another dtype than the layer's go to the reference."""

    def __init__(self, layer: LayerNorm, dtype: torch.dtype) -> None:
        self.layer, self.dtype, self.kind = layer, dtype, kind_of(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        layer, n = self.layer, self.layer.hidden_size
        if x.dtype is not self.dtype:
            return layer.reference(x)
        weight, bias = layer.weight, layer.bias
        rows = x.contiguous()
        out = torch.empty(x.shape, dtype=x.dtype)
        layer_norm(
            x.numel(),
            rows.data_ptr(),
            weight.data_ptr() if weight is not None else 0,
            bias.data_ptr() if bias is not None else 0,
            out.data_ptr(),
            x.numel() // n,
            n,
            layer.eps,
            self.kind,
        )
        return out


class CompiledActivation:
    """Fills one `sdk.layers.Activation`; inputs of another dtype go to the reference."""

    def __init__(self, layer: Activation, dtype: torch.dtype) -> None:
        self.layer, self.dtype, self.kind = layer, dtype, kind_of(dtype)
        self.sigmoid = SIGMOIDS.get(layer.name)

    @staticmethod
    def knows(layer: Activation) -> bool:
        """Whether there is a compiled form of this activation."""
        return layer.name == "gelu" or layer.name in SIGMOIDS

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype is not self.dtype:
            return self.layer.reference(x)
        x = x.contiguous()
        out, count = torch.empty_like(x), x.numel()
        if self.sigmoid is None:
            gelu(count * COST, x.data_ptr(), out.data_ptr(), count, self.kind)
        else:
            sigmoid_product(count * COST, x.data_ptr(), out.data_ptr(), count, *self.sigmoid, self.kind)
        return out


__all__ = ["CompiledActivation", "CompiledLayerNorm"]

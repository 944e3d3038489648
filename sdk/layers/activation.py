"""Activations: plain ones by the name a config gives, and gated ones over the two parts of a merged layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Layer


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": _squared_relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""Names as in HF configs (`hidden_act`) → function."""


def _lookup(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


class Activation(Layer):
    """An elementwise activation chosen by its HF name. Shapes: any → the same."""

    def __init__(self, name: str, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.name, self._function = name, _lookup(name)

    def reference(self, x: Tensor) -> Tensor:
        return self._function(x)

    def extra_repr(self) -> str:
        return self.name


class ActivationAndMul(Layer):
    """`activation(gate) * up` (GLU variants, Shazeer 2020). Shapes: two of `(..., n)` → `(..., n)`."""

    def __init__(self, name: str, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.name, self._function = name, _lookup(name)

    def reference(self, gate: Tensor, up: Tensor) -> Tensor:
        return self._function(gate) * up

    def extra_repr(self) -> str:
        return self.name


class SiluAndMul(ActivationAndMul):
    """`silu(gate) * up`."""

    def __init__(self, *, prefix: str = "") -> None:
        super().__init__("silu", prefix=prefix)


class GeluAndMul(ActivationAndMul):
    """`gelu(gate) * up`; `approximate="tanh"` for the tanh form."""

    def __init__(self, approximate: str = "none", *, prefix: str = "") -> None:
        super().__init__("gelu_pytorch_tanh" if approximate == "tanh" else "gelu", prefix=prefix)

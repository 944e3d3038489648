"""Weights in 8 bits, a scale for each output: the products in plain torch, which kernels are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import QuantizeMethod, exact_parameter

if TYPE_CHECKING:
    from ..layers.linear import Linear

LARGEST = 127
"""Of the integers; -128 is not used, so that a value and its negative are equally exact."""
ROWS = 256
"""Of a weight that are quantized at a time: what is between, in float32, stays in a cache."""
SMALLEST_ROW = 2.0**-100
"""A row whose largest value is below counts as zero: its inverse would leave float32."""


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as integers, symmetrically: each row's largest value becomes 127, what lies between is rounded to the nearest.

    A row with NaN or infinity has a scale that is none either, so nothing of the kind gets lost in the product.

    Shapes: `(..., n) -> (..., n) int8, (..., 1) float32`; `x ≈ integers * scales`.
    """
    values = x.float()
    largest = values.abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ROW)
    inverse = torch.full_like(largest, LARGEST) / largest  # `LARGEST / largest` would round twice
    integers = (values * inverse).round_().nan_to_num_(0.0)
    return integers.to(torch.int8), largest / LARGEST


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_rows`, some rows at a time; of a weight on the meta device what it would take."""
    if weight.is_meta:  # torch would import its compiler to find the shapes
        return weight.new_empty(weight.shape, dtype=torch.int8), weight.new_empty(len(weight), 1, dtype=torch.float32)
    parts = [quantize_rows(rows) for rows in torch.split(weight, ROWS)]
    return torch.cat([rows for rows, _ in parts]), torch.cat([scales for _, scales in parts])


def int8_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The product of integers, rows of `x` quantized as they come; a row's result does not depend on the others.

    The sums of integers are exact (in float64); everything after them is float32, in this order: the scale of the weight,
    that of the row, the bias.

    Shapes: x `(..., input)`, weight `(output, input)` int8, scale `(output, 1)` float32 → `(..., output)`.
    """
    integers, row_scale = quantize_rows(x)
    sums = F.linear(integers.double(), weight.double()).float()
    out = sums * scale.squeeze(-1) * row_scale
    return (out if bias is None else out + bias.float()).to(x.dtype)


class Int8(QuantizeMethod):
    """Weights in int8, symmetric, a scale for each output.

    Args:
        stored: The checkpoint holds integers and scales (`weight`, `weight_scale`); otherwise the weight is quantized at load.
        quantize_inputs: Products of integers, each row of the input quantized as it comes (W8A8). Otherwise the weight alone is
            in 8 bits, and products are the model's dtype's (W8A16).
    """

    def __init__(self, *, stored: bool = False, quantize_inputs: bool = True) -> None:
        self.stored, self.quantize_inputs = stored, quantize_inputs

    def create_weights(self, layer: Linear) -> None:
        if self.stored:
            layer.weight = exact_parameter(layer.output_size, layer.input_size, dtype=torch.int8)
            layer.weight_scale = exact_parameter(layer.output_size, 1, dtype=torch.float32)

    def process_weights_after_loading(self, layer: Linear) -> None:
        if not self.stored:
            weight, scale = _quantized(layer.weight.data)
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layer.weight_scale = nn.Parameter(scale, requires_grad=False)

    def apply(self, layer: Linear, x: Tensor) -> Tensor:
        scale, bias = layer.weight_scale, layer.bias
        assert isinstance(scale, Tensor)
        if self.quantize_inputs:
            return int8_product(x, layer.weight, scale, bias)
        return F.linear(x, (layer.weight * scale).to(x.dtype), bias)

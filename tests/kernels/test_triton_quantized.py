"""int8 products in Triton against the scheme's own plain torch."""

from __future__ import annotations

import pytest
import torch

from sdk.layers import ReplicatedLinear
from sdk.quantization import Int8
from tests.kernels.grid import device_of, dtypes_of, kernels_of

DEVICE = device_of("triton")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def quantized(inputs: int, outputs: int, bias: bool, dtype: torch.dtype, method: Int8) -> ReplicatedLinear:
    torch.manual_seed(inputs + outputs)
    layer = ReplicatedLinear(inputs, outputs, bias)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape).to(DEVICE, dtype) / inputs**0.5
    layer.quant_method = method
    method.process_weights_after_loading(layer)
    return layer


@pytest.mark.parametrize("dtype", dtypes_of("triton"), ids=str)
@pytest.mark.parametrize("integers", [True, False], ids=["integers", "weights alone"])
@pytest.mark.parametrize("rows", [0, 1, 3, 17, 70])
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(32, 48, False), (100, 70, True), (2100, 5, True)])
def test_products_of_every_shape(
    inputs: int, outputs: int, bias: bool, rows: int, integers: bool, dtype: torch.dtype
) -> None:
    method = Int8(quantize_inputs=integers)
    layer = quantized(inputs, outputs, bias, dtype, method)
    kernel = kernels_of("triton", dtype).other(layer)
    assert kernel is not None
    x = torch.randn(rows, inputs).to(DEVICE, dtype)
    ours, expected = kernel(x), method.apply(layer, x)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0.002, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_reaches_its_own_row_alone(value: float) -> None:
    layer = quantized(32, 8, False, torch.float32, Int8())
    kernel = kernels_of("triton", torch.float32).other(layer)
    assert kernel is not None
    x = torch.randn(3, 32, device=DEVICE)
    x[1, 5] = value
    found = kernel(x).isfinite().all(dim=-1).tolist()
    assert found == [True, False, True]


def test_halves_are_rounded_to_the_even_integer() -> None:
    """127 is the largest, so that the scale is 1 and the others stay what they are."""
    layer = quantized(8, 8, False, torch.float32, Int8())
    layer.weight.data, layer.weight_scale.data = torch.eye(8, dtype=torch.int8), torch.ones(8, 1)
    layer.to(DEVICE)
    kernel = kernels_of("triton", torch.float32).other(layer)
    assert kernel is not None
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49]], device=DEVICE)
    assert kernel(x).tolist() == [[127, 0, 2, 2, 0, -2, -2, 0]]

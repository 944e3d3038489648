"""int8 products on a CPU against the SDK's plain torch: the same bits, whatever the shape, the dtype and the company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.kernels import linear_int8
from core.kernels.linear_int8 import Int8Linear, can_multiply, int8_kernel
from sdk.layers import ReplicatedLinear
from sdk.quantization import Int8, int8_product, quantize_rows

pytestmark = pytest.mark.skipif(not can_multiply(), reason="this build of torch has no oneDNN products of integers")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
SHAPES = pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(64, 64), (192, 320), (128, 768), (64, 1216), (52, 100), (1, 7), (1024, 512), (2048, 1024)],
    ids=["block", "blocks", "even", "uneven", "odd", "least", "wide", "wider"],
)


def layer_of(
    inputs: int, outputs: int, dtype: torch.dtype, *, bias: bool = False, inputs8: bool = True
) -> ReplicatedLinear:
    torch.manual_seed(inputs + outputs)
    layer = ReplicatedLinear(inputs, outputs, bias=bias)
    layer.weight.data = torch.randn(outputs, inputs).to(dtype)
    if layer.bias is not None:
        layer.bias.data = torch.randn(outputs).to(dtype)
    layer.quant_method = Int8(quantize_inputs=inputs8)
    layer.quant_method.process_weights_after_loading(layer)
    return layer


def kernel_of(layer: ReplicatedLinear, dtype: torch.dtype) -> Int8Linear:
    kernel = int8_kernel(layer, dtype)
    assert kernel is not None
    assert layer.weight.numel() == 0  # the packed one is the only copy
    return kernel


@DTYPES
@SHAPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 17, 600])
def test_products_are_the_references_bit_by_bit(
    rows: int, bias: bool, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    layer = layer_of(inputs, outputs, dtype, bias=bias)
    x = (torch.randn(rows, inputs) * 3).to(dtype)
    expected = layer(x)
    assert torch.equal(kernel_of(layer, dtype)(x), expected)


@DTYPES
def test_a_row_does_not_depend_on_its_company(dtype: torch.dtype) -> None:
    kernel = kernel_of(layer_of(128, 192, dtype), dtype)
    x = torch.randn(70, 128).to(dtype)
    together = kernel(x)
    assert all(torch.equal(kernel(x[i : i + n]), together[i : i + n]) for i, n in ((0, 1), (3, 1), (5, 2), (10, 60)))


@DTYPES
@pytest.mark.parametrize("rows", [1, 5])
def test_a_machine_without_byte_products_or_another_layout_gives_the_same(
    rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(rows, 128).to(dtype)
    ours = kernel_of(layer_of(128, 64, dtype), dtype)(x)
    monkeypatch.setattr(linear_int8, "HAS_DOTS", False)
    plain = kernel_of(layer_of(128, 64, dtype), dtype)
    assert plain.address is None
    assert torch.equal(plain(x), ours)


@pytest.mark.parametrize("rows", [1, 3, 40])
@SHAPES
def test_weights_alone_in_8_bits_are_as_exact_as_bfloat16(rows: int, inputs: int, outputs: int) -> None:
    layer = layer_of(inputs, outputs, torch.bfloat16, bias=True, inputs8=False)
    x = torch.randn(rows, inputs).bfloat16()
    x[:, 0] *= 30  # one channel far above the others, as large models have them
    scale, bias = layer.weight_scale, layer.bias
    assert isinstance(scale, Tensor)
    assert bias is not None
    exact = torch.nn.functional.linear(x.double(), layer.weight.double() * scale, bias.double())
    theirs = (layer(x).double() - exact).abs().max()
    ours = (kernel_of(layer, torch.bfloat16)(x).double() - exact).abs().max()
    assert ours <= 1.1 * theirs + 1e-9
    assert int8_kernel(layer_of(inputs, outputs, torch.float32, inputs8=False), torch.float32) is None


@DTYPES
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_not_a_number_stays_so_in_its_own_row(rows: int, value: float, dtype: torch.dtype) -> None:
    layer = layer_of(64, 128, dtype)
    kernel, x = kernel_of(layer, dtype), torch.randn(rows, 64).to(dtype)
    x[0, 5] = value
    made = kernel(x)
    assert not made[0].isfinite().any()
    assert made[1:].isfinite().all()


@DTYPES
def test_a_row_of_zeros_or_of_next_to_nothing_is_zero(dtype: torch.dtype) -> None:
    kernel = kernel_of(layer_of(64, 64, dtype), dtype)
    for x in (torch.zeros(1, 64), torch.full((1, 64), 1e-38), torch.full((3, 64), -1e-38)):
        assert torch.equal(kernel(x.to(dtype)).abs().float() < 1e-30, torch.ones(len(x), 64, dtype=torch.bool))


@DTYPES
def test_rows_that_are_not_side_by_side(dtype: torch.dtype) -> None:
    layer = layer_of(64, 64, dtype)
    wide = torch.randn(5, 3, 128).to(dtype)
    inputs = (wide[:, :, 64:], wide[:, 1, :64], wide[:, 0, ::2], wide.transpose(0, 1)[:, :, :64], wide[0, 0, :64])
    expected = [layer(x) for x in inputs]
    kernel = kernel_of(layer, dtype)
    for x, made in zip(inputs, expected):
        assert torch.equal(kernel(x), made)


def test_the_references_own_laws() -> None:
    x = torch.randn(7, 33)
    integers, scale = quantize_rows(x)
    assert integers.dtype == torch.int8
    assert (integers.abs().amax(dim=1) == 127).all()
    assert torch.equal(quantize_rows(-x)[0], -integers)
    assert ((integers * scale - x).abs() <= scale / 2 * 1.0001).all()
    weight, weight_scale = quantize_rows(torch.randn(5, 33))
    made = int8_product(x, weight, weight_scale, None)
    torch.testing.assert_close(made, (integers * scale) @ (weight * weight_scale).T, rtol=1e-5, atol=1e-5)

"""The compiled row-wise layers and packed products against their references."""

from __future__ import annotations

import pytest
import torch

from core.kernels._lanes import DOTS_BF16
from core.kernels._tile import ROWS as TILE_ROWS
from core.kernels.linear import PackedLinear, can_pack
from core.kernels.linear_compiled import CompiledPackedLinear, rows_near
from core.kernels.rows import CompiledRMSNorm, CompiledSiluAndMul
from sdk.layers import RMSNorm, SiluAndMul

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
ROWS = pytest.mark.parametrize("rows", [0, 1, 3, 64])


@DTYPES
@ROWS
@pytest.mark.parametrize("width", [1, 16, 100])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm_with_and_without_a_residual(rows: int, width: int, offset: float, dtype: torch.dtype) -> None:
    torch.manual_seed(rows + width)
    layer = RMSNorm(width, 1e-5, offset=offset)
    layer.weight.data = torch.randn(width).to(dtype)
    kernel, x, residual = CompiledRMSNorm(layer), torch.randn(rows, width).to(dtype), torch.randn(rows, width).to(dtype)
    kept = x.clone(), residual.clone()
    torch.testing.assert_close(kernel(x), layer.reference(x), rtol=0.02, atol=TOLERANCE[dtype])
    ours, theirs = kernel(x, residual), layer.reference(x, residual)
    assert isinstance(ours, tuple)
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0], rtol=0.02, atol=TOLERANCE[dtype])
    assert torch.equal(x, kept[0])
    assert torch.equal(residual, kept[1])


@DTYPES
@ROWS
@pytest.mark.parametrize("heads", [1, 5])
def test_rms_norm_of_each_head_in_a_fused_projection(rows: int, heads: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows + heads)
    layer = RMSNorm(16, 1e-5)
    layer.weight.data = torch.randn(16).to(dtype)
    q, _ = torch.randn(rows, heads + 2, 16).to(dtype).split([heads, 2], dim=1)
    ours = CompiledRMSNorm(layer)(q)
    torch.testing.assert_close(ours, layer.reference(q), rtol=0.02, atol=TOLERANCE[dtype])
    assert ours.is_contiguous()


@DTYPES
@ROWS
def test_gated_silu_over_the_halves_of_one_product(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    layer = SiluAndMul()
    gate, up = (torch.randn(rows, 2 * 50) * 4).to(dtype).split(50, dim=-1)
    ours = CompiledSiluAndMul(layer, dtype)(gate, up)
    torch.testing.assert_close(ours, layer.reference(gate, up), rtol=0.02, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_what_is_not_a_number_stays_so(value: float) -> None:
    """A NaN that a kernel swallowed would hide a broken model."""
    layer = RMSNorm(8)
    layer.weight.data = torch.ones(8)
    x = torch.ones(2, 8)
    x[0, 3] = value
    ours, theirs = CompiledRMSNorm(layer)(x), layer.reference(x)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    gated = CompiledSiluAndMul(SiluAndMul(), torch.float32)(x, torch.ones(2, 8))
    expected = SiluAndMul().reference(x, torch.ones(2, 8))
    # silu(-inf) is -inf · 0: torch says NaN, the kernel -inf; what counts is that it is not a number.
    assert torch.equal(gated.isfinite(), expected.isfinite())
    torch.testing.assert_close(gated[expected.isfinite()], expected[expected.isfinite()])


@DTYPES
@pytest.mark.parametrize("rows", [1, 2, 17, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_product_is_the_product(rows: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    weight, x = torch.randn(48, 32).to(dtype), torch.randn(rows, 32).to(dtype)
    if not can_pack(weight):
        pytest.skip("this build of torch cannot reorder weights for oneDNN")
    b = torch.randn(48).to(dtype) if bias else None
    expected = torch.nn.functional.linear(x.float(), weight.float(), b.float() if b is not None else None)
    got = PackedLinear(weight, b)(x).float()
    torch.testing.assert_close(got, expected, rtol=0.02, atol=1e-4 if dtype is torch.float32 else 0.1)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 12, 64, 257])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (256, 192), (48, 128), (64, 100), (64, 25)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_compiled_product_of_a_packed_weight(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(rows)
    weight, wide = torch.randn(outputs, inputs).bfloat16(), torch.randn(rows, inputs + 6).bfloat16()
    if not can_pack(weight):
        pytest.skip("this build of torch cannot reorder weights for oneDNN")
    x, b = wide[:, 3 : 3 + inputs], torch.randn(outputs).bfloat16() if bias else None
    product = CompiledPackedLinear(weight, b)
    if DOTS_BF16 and inputs % 64 == 0:
        assert product.address is not None, "oneDNN packs in another way than the kernel reads"
    expected = torch.nn.functional.linear(x.float(), weight.float(), b.float() if b is not None else None)
    torch.testing.assert_close(product(x).float(), expected, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(product(x[None]).float(), expected[None], rtol=2**-7, atol=2**-7)
    assert product(x[:0]).shape == (0, outputs)


@pytest.mark.parametrize("rows", [65, 66, 131, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (256, 328), (3072, 192)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_row_of_a_product_is_the_same_however_many_there_are(
    rows: int, inputs: int, outputs: int, bias: bool
) -> None:
    torch.manual_seed(rows)
    weight, b = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs).bfloat16() if bias else None
    if not can_pack(weight):
        pytest.skip("this build of torch cannot reorder weights for oneDNN")
    x, product = torch.randn(rows, inputs).bfloat16(), CompiledPackedLinear(weight, b)
    made = product(x)
    expected = torch.nn.functional.linear(x.float(), weight.float(), b.float() if b is not None else None)
    torch.testing.assert_close(made.float(), expected, rtol=2**-7, atol=2**-7)
    if product.address is not None:
        for first, last in ((0, 1), (rows - 1, rows), (0, 40), (rows - 64, rows)):
            assert torch.equal(product(x[first:last]), made[first:last])


def test_jobs_of_a_product_are_whole_tiles_of_about_as_many_rows() -> None:
    for rows in range(65, 3000, 7):
        for inputs in (64, 1024, 4096, 14336):
            near = rows_near(rows, inputs)
            groups = -(-rows // near)
            assert near % TILE_ROWS == 0
            assert rows > (groups - 1) * near
            assert near - rows / groups < 2 * TILE_ROWS or groups == 1

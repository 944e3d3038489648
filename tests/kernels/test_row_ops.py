"""Norms, activations and rotations in every form that there is, against the layers' references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdk.layers import Activation, ActivationAndMul, RMSNorm
from sdk.layers.base import Kernel, Layer
from tests.kernels.grid import FORMS_AND_DTYPES, device_of, dtypes_of, kernels_of, rope

TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
COMPILED = [case for case in FORMS_AND_DTYPES if case.values[0] != "torch"]
TRITON = [pytest.param("triton", dtype, id=str(dtype)) for dtype in dtypes_of("triton")]
ROWS = pytest.mark.parametrize("rows", [0, 1, 3, 17])
NAMES = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2"]


def random(form: str, dtype: torch.dtype, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(device_of(form), dtype)


def form_of(form: str, dtype: torch.dtype, layer: Layer) -> Kernel:
    found = kernels_of(form, dtype).other(layer)
    assert found is not None
    return found


def close(ours: Tensor, expected: Tensor) -> None:
    assert ours.dtype == expected.dtype
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0.01, atol=TOLERANCE[ours.dtype])


@pytest.mark.parametrize(("form", "dtype"), COMPILED)
@ROWS
@pytest.mark.parametrize("width", [1, 16, 100, 1030])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm_with_and_without_a_residual(
    rows: int, width: int, offset: float, form: str, dtype: torch.dtype
) -> None:
    layer = RMSNorm(width, 1e-5, offset=offset)
    layer.weight.data = random(form, dtype, width)
    kernel, x, residual = (
        form_of(form, dtype, layer),
        random(form, dtype, rows, width),
        random(form, dtype, rows, width),
    )
    kept = x.clone(), residual.clone()
    close(kernel(x), layer.reference(x))
    ours, theirs = kernel(x, residual), layer.reference(x, residual)
    assert torch.equal(ours[1], theirs[1])
    close(ours[0], theirs[0])
    assert torch.equal(x, kept[0])
    assert torch.equal(residual, kept[1])


@pytest.mark.parametrize(("form", "dtype"), COMPILED)
@ROWS
def test_rms_norm_of_each_head_in_a_fused_projection(rows: int, form: str, dtype: torch.dtype) -> None:
    layer = RMSNorm(16, 1e-5)
    layer.weight.data = random(form, dtype, 16)
    q, _ = random(form, dtype, rows, 7, 16).split([5, 2], dim=1)
    ours = form_of(form, dtype, layer)(q)
    close(ours, layer.reference(q))
    assert ours.is_contiguous()


@pytest.mark.parametrize(("form", "dtype"), TRITON)
@ROWS
@pytest.mark.parametrize("name", NAMES)
def test_activations_gated_and_not(name: str, rows: int, form: str, dtype: torch.dtype) -> None:
    both = random(form, dtype, rows, 2 * 50) * 4
    gate, up = both.split(50, dim=-1)
    gated, plain = ActivationAndMul(name), Activation(name)
    close(form_of(form, dtype, gated)(gate, up), gated.reference(gate, up))
    close(form_of(form, dtype, plain)(gate), plain.reference(gate))
    close(form_of(form, dtype, plain)(both.unflatten(-1, (2, 50))), plain.reference(both.unflatten(-1, (2, 50))))


def test_a_row_wider_than_a_program() -> None:
    gate, up = random("triton", torch.float32, 2, 2 * 2500).split(2500, dim=-1)
    layer = ActivationAndMul("silu")
    close(form_of("triton", torch.float32, layer)(gate, up), layer.reference(gate, up))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_stays_so(value: float, name: str) -> None:
    """A NaN that a kernel swallowed would hide a broken model."""
    x, ones = random("triton", torch.float32, 2, 8), torch.ones(2, 8, device=device_of("triton"))
    x[0, 3] = value
    norm, gated = RMSNorm(8), ActivationAndMul(name)
    norm.weight.data = ones[0]
    assert torch.equal(form_of("triton", x.dtype, norm)(x).isnan(), norm.reference(x).isnan())
    ours, theirs = form_of("triton", x.dtype, gated)(x, ones), gated.reference(x, ones)
    assert torch.equal(
        ours.isfinite(), theirs.isfinite()
    )  # infinity times nothing: torch's own forms differ in what it is


@pytest.mark.parametrize(("form", "dtype"), TRITON)
@ROWS
@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
@pytest.mark.parametrize("partial", [1.0, 0.5], ids=["whole", "half"])
def test_rotary_by_itself(partial: float, interleaved: bool, rows: int, form: str, dtype: torch.dtype) -> None:
    rotary = rope(24, interleaved=interleaved, partial=partial).to(device_of(form))
    q, k = random(form, dtype, rows, 5, 24).split([3, 2], dim=1)
    positions = torch.arange(rows, device=q.device) * 7
    for ours, theirs in zip(form_of(form, dtype, rotary)(positions, q, k), rotary.reference(positions, q, k)):
        close(ours, theirs)

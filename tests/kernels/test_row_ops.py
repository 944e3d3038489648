"""Norms, activations and rotations in every form that there is, against the layers' references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdk.layers import Activation, ActivationAndMul, LayerNorm, RMSNorm
from sdk.layers.base import Kernel, Layer
from tests.kernels.grid import FORMS_AND_DTYPES, device_of, dtypes_of, kernels_of, rope

TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
COMPILED = [case for case in FORMS_AND_DTYPES if case.values[0] != "torch"]
PLAIN = [case for case in FORMS_AND_DTYPES if case.values[0] == "compiled"]
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


@pytest.mark.parametrize(("form", "dtype"), PLAIN)
@ROWS
@pytest.mark.parametrize("width", [1, 16, 100, 1030])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}], ids=str)
def test_layer_norm(rows: int, width: int, options: dict[str, bool], form: str, dtype: torch.dtype) -> None:
    layer = LayerNorm(width, 1e-5, **options)
    for parameter in layer.parameters():
        parameter.data = random(form, dtype, width)
    kernel, x = form_of(form, dtype, layer), random(form, dtype, rows, width) * 3 + 5
    kept = x.clone()
    close(kernel(x), layer.reference(x))
    turned = x.T.contiguous().T
    assert torch.equal(kernel(turned), kernel(x))
    assert torch.equal(kernel(x.unsqueeze(0)), kernel(x).unsqueeze(0))
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("form", "dtype"), PLAIN)
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu", "swish"])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 50), (2, 3, 7001)], ids=str)
def test_activations_over_their_whole_range(name: str, shape: tuple[int, ...], form: str, dtype: torch.dtype) -> None:
    layer = Activation(name)
    kernel, x = form_of(form, dtype, layer), random(form, dtype, *shape) * 6
    close(kernel(x), layer.reference(x))
    assert torch.equal(kernel(x.transpose(0, -1)), kernel(x).transpose(0, -1))
    extreme = torch.tensor([-1e4, -90.0, -0.0, 0.0, 1e-30, 90.0, 1e4], dtype=dtype)
    close(kernel(extreme), layer.reference(extreme))
    assert kernel(torch.tensor([float("nan"), 1.0], dtype=dtype)).isnan().tolist() == [True, False]
    assert kernel(torch.tensor([float("inf"), -float("inf")], dtype=dtype)).isfinite().tolist() == [False, False]


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "quick_gelu"])
def test_an_activation_is_exact_far_below_zero_too(name: str) -> None:
    layer, x = Activation(name), torch.linspace(-8, 8, 4001)
    exact = layer.reference(x.double())
    ours = form_of("compiled", torch.float32, layer)(x)
    torch.testing.assert_close(ours.double(), exact, rtol=2e-5, atol=1e-11)


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

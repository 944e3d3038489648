"""The scans' forms against their references."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from sdk.layers import Layer, SelectiveScan, StateSpaceDual
from sdk.layers.base import Kernel
from sdk.testing.reference import assert_close
from tests.kernels.grid import device_of, kernels_of

FORMS = pytest.mark.parametrize("form", ["compiled", "triton"])


def filled(form: str, layer: Layer) -> Kernel:
    """A form of a scan."""
    kernel = kernels_of(form, torch.float32).other(layer)
    assert kernel is not None
    return kernel


def run(form: str, layer: Layer, given: Sequence[torch.Tensor], state: torch.Tensor) -> list[torch.Tensor]:
    """What a form makes of these, which stay what they are, and the state after."""
    moved, kept = [each.to(device_of(form)) for each in given], [each.clone() for each in given]
    made = filled(form, layer)(*moved, state.to(device_of(form)).clone())
    for now, before in zip(moved, kept):
        torch.testing.assert_close(now.cpu(), before, rtol=0, atol=0, equal_nan=True)
    return [each.cpu() for each in made]


@FORMS
@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize(("channels", "size"), [(16, 16), (48, 5), (64, 16), (20, 4)])
def test_the_selective_scan(form: str, sequences: int, n: int, channels: int, size: int) -> None:
    draws = torch.Generator().manual_seed(n)
    x, dt = torch.randn(sequences, n, channels, generator=draws), torch.rand(sequences, n, channels, generator=draws)
    b, c, _ = torch.randn(sequences, n, 2 * size + 1, generator=draws).split([size, size, 1], dim=-1)
    a = -torch.rand(channels, size, generator=draws).t()
    state = torch.randn(sequences, size, channels, generator=draws)
    scan, given = SelectiveScan(), (x, dt, a, b, c)
    for ours, theirs in zip(run(form, scan, given, state), scan.reference(*given, state)):
        assert_close(ours, theirs, 1e-5)


@FORMS
@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("heads", "head_dim", "size", "groups"), [(1, 4, 16, 1), (6, 3, 32, 2), (4, 8, 128, 4), (6, 4, 5, 1)]
)
def test_the_dual_form(form: str, sequences: int, n: int, heads: int, head_dim: int, size: int, groups: int) -> None:
    draws = torch.Generator().manual_seed(n)
    wide = torch.randn(sequences, n, heads * head_dim + 2 * groups * size, generator=draws)
    x, b, c = wide.split([heads * head_dim, groups * size, groups * size], dim=-1)
    x = x.view(sequences, n, heads, head_dim)
    b, c = (each.view(sequences, n, groups, size) for each in (b, c))
    dt, a = torch.rand(sequences, n, heads, generator=draws), -torch.rand(heads, generator=draws)
    state = torch.randn(sequences, heads, head_dim, size, generator=draws)
    scan, given = StateSpaceDual(), (x, dt, a, b, c)
    for ours, theirs in zip(run(form, scan, given, state), scan.reference(*given, state)):
        assert_close(ours, theirs, 1e-5)


@FORMS
def test_a_number_that_is_none_stays_none(form: str) -> None:
    x = torch.zeros(1, 3, 16)
    x[0, 1, 5] = float("nan")
    ones = torch.ones(1, 3, 16)
    given = x, ones, -torch.ones(3, 16), ones[..., :3], ones[..., :3]
    out, state = run(form, SelectiveScan(), given, torch.zeros(1, 3, 16))
    assert out[0, 1:, 5].isnan().all()
    assert out.isnan().sum() == 2
    assert state[0, :, 5].isnan().all()

"""The compiled scans against their references."""

from __future__ import annotations

import pytest
import torch

from core.kernels.scan_compiled import CompiledSelectiveScan, CompiledStateSpaceDual
from sdk.layers import SelectiveScan, StateSpaceDual
from sdk.testing.reference import assert_close


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize(("channels", "size"), [(16, 16), (48, 5), (64, 16), (20, 4)])
def test_the_selective_scan(sequences: int, n: int, channels: int, size: int) -> None:
    draws = torch.Generator().manual_seed(n)
    x, dt = torch.randn(sequences, n, channels, generator=draws), torch.rand(sequences, n, channels, generator=draws)
    b, c, _ = torch.randn(sequences, n, 2 * size + 1, generator=draws).split([size, size, 1], dim=-1)
    a = -torch.rand(channels, size, generator=draws).t()
    state = torch.randn(sequences, size, channels, generator=draws)
    scan, given = SelectiveScan(), (x, dt, a, b, c)
    kept = [each.clone() for each in given]
    for ours, theirs in zip(CompiledSelectiveScan(scan)(*given, state.clone()), scan.reference(*given, state)):
        assert_close(ours, theirs, 1e-5)
    assert all(torch.equal(now, before) for now, before in zip(given, kept))


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("heads", "head_dim", "size", "groups"), [(1, 4, 16, 1), (6, 3, 32, 2), (4, 8, 128, 4), (6, 4, 5, 1)]
)
def test_the_dual_form(sequences: int, n: int, heads: int, head_dim: int, size: int, groups: int) -> None:
    draws = torch.Generator().manual_seed(n)
    wide = torch.randn(sequences, n, heads * head_dim + 2 * groups * size, generator=draws)
    x, b, c = wide.split([heads * head_dim, groups * size, groups * size], dim=-1)
    x = x.view(sequences, n, heads, head_dim)
    b, c = (each.view(sequences, n, groups, size) for each in (b, c))
    dt, a = torch.rand(sequences, n, heads, generator=draws), -torch.rand(heads, generator=draws)
    state = torch.randn(sequences, heads, head_dim, size, generator=draws)
    scan, kept = StateSpaceDual(), wide.clone()
    made = CompiledStateSpaceDual(scan)(x, dt, a, b, c, state.clone())
    for ours, theirs in zip(made, scan.reference(x, dt, a, b, c, state)):
        assert_close(ours, theirs, 1e-5)
    assert torch.equal(wide, kept)


def test_a_number_that_is_none_stays_none() -> None:
    x = torch.zeros(1, 3, 16)
    x[0, 1, 5] = float("nan")
    ones = torch.ones(1, 3, 16)
    scan = CompiledSelectiveScan(SelectiveScan())
    out, state = scan(x, ones, -torch.ones(3, 16), ones[..., :3], ones[..., :3], torch.zeros(1, 3, 16))
    assert out[0, 1:, 5].isnan().all()
    assert out.isnan().sum() == 2
    assert state[0, :, 5].isnan().all()

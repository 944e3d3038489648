"""The compiled selective scan against its reference."""

from __future__ import annotations

import pytest
import torch

from core.kernels.scan_compiled import CompiledSelectiveScan
from sdk.layers import SelectiveScan
from sdk.testing.reference import assert_close


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize(("channels", "size"), [(16, 16), (48, 5), (64, 16), (20, 4)])
def test_the_compiled_scan_is_the_reference(sequences: int, n: int, channels: int, size: int) -> None:
    draws = torch.Generator().manual_seed(n)
    x, dt = torch.randn(sequences, n, channels, generator=draws), torch.rand(sequences, n, channels, generator=draws)
    b, c, _ = torch.randn(sequences, n, 2 * size + 1, generator=draws).split([size, size, 1], dim=-1)
    a = -torch.rand(channels, size, generator=draws).t()
    state = torch.randn(sequences, size, channels, generator=draws)
    kept = [each.clone() for each in (x, dt, a, b, c, state)]
    scan = SelectiveScan()
    made = CompiledSelectiveScan(scan)(x, dt, a, b, c, state)
    for ours, theirs in zip(made, scan.reference(x, dt, a, b, c, state)):
        assert_close(ours, theirs, 1e-5)
    assert all(torch.equal(now, before) for now, before in zip((x, dt, a, b, c, state), kept))


def test_a_number_that_is_none_stays_none() -> None:
    x = torch.zeros(1, 3, 16)
    x[0, 1, 5] = float("nan")
    ones = torch.ones(1, 3, 16)
    out, state = CompiledSelectiveScan(SelectiveScan())(
        x, ones, -torch.ones(3, 16), ones[..., :3], ones[..., :3], torch.zeros(1, 3, 16)
    )
    assert out[0, 1:, 5].isnan().all()
    assert out.isnan().sum() == 2
    assert state[0, :, 5].isnan().all()

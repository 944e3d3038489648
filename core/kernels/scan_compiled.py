"""Scans over states on a CPU. The specifications are the references of `sdk.layers.SelectiveScan` and `StateSpaceDual`."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import SelectiveScan, StateSpaceDual

from ._lanes import WIDTH
from ._scan import dual_token, selective_scan


class CompiledSelectiveScan:
    """Fills one `sdk.layers.SelectiveScan`; channels that are no multiple of the lanes go to the reference."""

    def __init__(self, layer: SelectiveScan) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sequences, n, channels = x.shape
        if channels % WIDTH:
            return self.layer.reference(x, dt, a, b, c, state)
        x, dt, a, b, c, state = (each.contiguous() for each in (x, dt, a, b, c, state))
        out, size = torch.empty_like(x), a.shape[0]
        places = (each.data_ptr() for each in (x, dt, a, b, c, state, out))
        selective_scan(x.numel() * size, *places, sequences, n, channels, size)
        return out, state


class CompiledStateSpaceDual:
    """Fills one `sdk.layers.StateSpaceDual` for decoding; prompts are products of matrices, as the reference has them."""

    def __init__(self, layer: StateSpaceDual) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sequences, n, heads, head_dim = x.shape
        groups, size = b.shape[2:]
        if n > 1 or size % WIDTH:
            return self.layer.reference(x, dt, a, b, c, state)
        x, dt, a, b, c, state = (each.contiguous() for each in (x, dt, a, b, c, state))
        out = torch.empty_like(x)
        places = (each.data_ptr() for each in (x, dt, a, b, c, state, out))
        dual_token(state.numel(), *places, sequences, heads, head_dim, size, groups)
        return out, state

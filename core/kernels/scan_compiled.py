"""The selective scan on a CPU. The specification is `sdk.layers.SelectiveScan.reference`."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import SelectiveScan

from ._lanes import WIDTH
from ._scan import selective_scan


class CompiledSelectiveScan:
    """Fills one `sdk.layers.SelectiveScan`; channels that are no multiple of the lanes go to the reference."""

    def __init__(self, layer: SelectiveScan) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sequences, n, channels = x.shape
        if channels % WIDTH:
            return self.layer.reference(x, dt, a, b, c, state)
        x, dt, a, b, c = (each.contiguous() for each in (x, dt, a, b, c))
        out, after = torch.empty_like(x), state.clone(memory_format=torch.contiguous_format)
        size = a.shape[0]
        places = (each.data_ptr() for each in (x, dt, a, b, c, after, out))
        selective_scan(x.numel() * size, *places, sequences, n, channels, size)
        return out, after

"""Scans over states in Triton. The specifications are the references of `sdk.layers.SelectiveScan` and `StateSpaceDual`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import SelectiveScan, StateSpaceDual

from .common import padded, warps_for


@triton.jit
def selective_scan(x, dt, a, b, c, state, out, n, channels, size, CHANNELS: tl.constexpr, SIZE: tl.constexpr):
    """Programs: (block of channels, sequence). A block's state stays in registers from the first token to the last."""
    sequence = tl.program_id(1).to(tl.int64)
    channel, k = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, SIZE)
    inside, known = channel < channels, k < size
    both = known[:, None] & inside[None, :]
    rate = tl.load(a + k[:, None] * channels + channel[None, :], mask=both, other=0.0)
    kept = state + (sequence * size + k[:, None]) * channels + channel[None, :]
    h = tl.load(kept, mask=both, other=0.0)
    for t in range(n):
        row = sequence * n + t
        step = tl.load(dt + row * channels + channel, mask=inside, other=0.0)
        added = step * tl.load(x + row * channels + channel, mask=inside, other=0.0)
        taken = tl.load(b + row * size + k, mask=known, other=0.0)
        told = tl.load(c + row * size + k, mask=known, other=0.0)
        h = tl.exp(step[None, :] * rate) * h + added[None, :] * taken[:, None]
        tl.store(out + row * channels + channel, tl.sum(h * told[:, None], 0), mask=inside)
    tl.store(kept, h, mask=both)


@triton.jit
def dual_token(x, dt, a, b, c, state, out, heads, head_dim, size, groups, DIM: tl.constexpr, SIZE: tl.constexpr):
    """One token of each sequence. Programs: (head, sequence)."""
    head, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, k = tl.arange(0, DIM), tl.arange(0, SIZE)
    inside, known = i < head_dim, k < size
    both = inside[:, None] & known[None, :]
    own, shared = sequence * heads + head, sequence * groups + head * groups // heads
    step = tl.load(dt + own)
    added = step * tl.load(x + own * head_dim + i, mask=inside, other=0.0)
    taken = tl.load(b + shared * size + k, mask=known, other=0.0)
    told = tl.load(c + shared * size + k, mask=known, other=0.0)
    kept = state + (own * head_dim + i[:, None]) * size + k[None, :]
    h = tl.exp(step * tl.load(a + head)) * tl.load(kept, mask=both, other=0.0) + added[:, None] * taken[None, :]
    tl.store(out + own * head_dim + i, tl.sum(h * told[None, :], 1), mask=inside)
    tl.store(kept, h, mask=both)


class TritonSelectiveScan:
    """Fills one `sdk.layers.SelectiveScan`. Shapes: as of the layer; the state after lies in the place of the one before."""

    def __init__(self, layer: SelectiveScan) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x, dt, a, b, c, state = (each.contiguous() for each in (x, dt, a, b, c, state))
        sequences, n, channels = x.shape
        out, size = x.new_empty(x.shape), a.shape[0]
        block = 32
        if x.numel():
            selective_scan[(-(-channels // block), sequences)](
                x, dt, a, b, c, state, out, n, channels, size, CHANNELS=block, SIZE=padded(size), num_warps=1
            )
        return out, state


class TritonStateSpaceDual:
    """Fills one `sdk.layers.StateSpaceDual` for decoding; prompts are products of matrices, as the reference has them."""

    def __init__(self, layer: StateSpaceDual) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sequences, n, heads, head_dim = x.shape
        groups, size = b.shape[2:]
        if n != 1:
            return self.layer.reference(x, dt, a, b, c, state)
        x, dt, a, b, c, state = (each.contiguous() for each in (x, dt, a, b, c, state))
        out, tile = x.new_empty(x.shape), (padded(head_dim), padded(size))
        if x.numel():
            dual_token[(heads, sequences)](
                x, dt, a, b, c, state, out, heads, head_dim, size, groups, DIM=tile[0], SIZE=tile[1],
                num_warps=warps_for(tile[0] * tile[1]),
            )  # fmt: skip
        return out, state

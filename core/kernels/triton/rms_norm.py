"""RMSNorm, with the residual addition before it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import RMSNorm

from .common import padded, rows_of, warps_for


@triton.jit
def rms_norm(x, residual, weight, out, total, group, line, eps, offset,
             LINES: tl.constexpr, N: tl.constexpr, TILE: tl.constexpr, RESIDUAL: tl.constexpr,
             OFFSET: tl.constexpr):  # fmt: skip
    """Programs: rows. `out = norm(x + residual)`, `total = x + residual`.

    All but `x` are contiguous. It rounds where the reference does.
    """
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, TILE)
    inside = i < N
    value = tl.load(x + row // LINES * group + row % LINES * line + i, mask=inside, other=0.0)
    if RESIDUAL:
        value = (value.to(tl.float32) + tl.load(residual + row * N + i, mask=inside, other=0.0).to(tl.float32)).to(
            value.dtype
        )
        tl.store(total + row * N + i, value, mask=inside)
    wide = value.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide, 0) / N + eps)
    scale = tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)
    wide = wide * (scale + offset) if OFFSET else wide.to(value.dtype).to(tl.float32) * scale
    tl.store(out + row * N + i, wide.to(value.dtype), mask=inside)


class TritonRMSNorm:
    """Fills one `sdk.layers.RMSNorm`; what lies in another way than rows goes to the reference."""

    def __init__(self, layer: RMSNorm) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        layer, n, rows = self.layer, x.shape[-1], rows_of(x)
        if rows is None or layer.weight.dtype != x.dtype or (residual is not None and residual.dtype != x.dtype):
            return layer.reference(x, residual)
        lines, group, line = rows
        out = x.new_empty(x.shape)
        total = x.new_empty(x.shape) if residual is not None else None
        if x.numel():
            rms_norm[(x.numel() // n,)](
                x, residual.contiguous() if residual is not None else None, layer.weight, out, total, group, line, layer.eps,
                layer.offset, LINES=lines, N=n, TILE=padded(n), RESIDUAL=residual is not None, OFFSET=layer.offset != 0.0,
                num_warps=warps_for(n),
            )  # fmt: skip
        return out if total is None else (out, total)

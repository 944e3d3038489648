"""Row-wise layers on a CPU, compiled: RMSNorm with its residual, and gated activation. The specifications are in `sdk.layers`."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import RMSNorm

from ._rows import rms_norm, silu_and_mul
from .compiled import kind_of, supports


class CompiledRMSNorm:
    """Fills one `sdk.layers.RMSNorm`; inputs it cannot read go to the reference."""

    def __init__(self, layer: RMSNorm) -> None:
        self.layer, self.dtype, self.kind = layer, layer.weight.dtype, kind_of(layer.weight.dtype)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        layer, n = self.layer, x.shape[-1]
        # Rows by themselves, or the heads of each token side by side, as a fused projection leaves them.
        lines = x.shape[1] if x.ndim == 3 else 1
        side_by_side = x.stride(-1) == 1 and (x.ndim == 2 or (x.ndim == 3 and x.stride(1) == n))
        readable = side_by_side and x.dtype is self.dtype
        if not readable or (residual is not None and not (residual.is_contiguous() and residual.dtype is self.dtype)):
            return layer.reference(x, residual)
        out = torch.empty(x.shape, dtype=x.dtype)
        total = torch.empty_like(out) if residual is not None else None
        rms_norm(
            x.numel(),
            x.data_ptr(),
            x.stride(0),
            lines,
            residual.data_ptr() if residual is not None else 0,
            layer.weight.data_ptr(),
            out.data_ptr(),
            total.data_ptr() if total is not None else 0,
            x.shape[0] * lines,
            n,
            layer.eps,
            layer.offset,
            self.kind,
        )
        return out if total is None else (out, total)


class CompiledSiluAndMul:
    """Fills one `sdk.layers.SiluAndMul`-like layer; inputs it cannot read go to `reference`."""

    def __init__(self, layer: torch.nn.Module, dtype: torch.dtype) -> None:
        self.layer, self.kind = layer, kind_of(dtype)

    def __call__(self, gate: Tensor, up: Tensor) -> Tensor:
        if gate.ndim != 2 or gate.stride() != up.stride() or not supports(gate, up):
            out: Tensor = self.layer.reference(gate, up)  # type: ignore[operator]
            return out
        rows, n = gate.shape
        made = torch.empty(rows, n, dtype=gate.dtype)
        silu_and_mul(
            gate.numel() * 4, gate.data_ptr(), up.data_ptr(), gate.stride(0), made.data_ptr(), rows, n, self.kind
        )
        return made

"""Activations, and gated ones over the two parts of a merged product."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import Activation, ActivationAndMul

from .common import erf_gelu, padded, rows_of, tanh_gelu

KINDS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
}
"""Names as in HF configs → the kernel's."""
MOST = 1024
"""Elements of a row that a program computes."""


@triton.jit
def activate(gate, up, out, n, group, line, up_group, up_line, LINES: tl.constexpr,
             TILE: tl.constexpr, KIND: tl.constexpr, GATED: tl.constexpr):  # fmt: skip
    """Programs: (row, part of it). `out = activation(gate) * up`, or without `up`; `out` is contiguous."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = i < n
    value = tl.load(gate + row // LINES * group + row % LINES * line + i, mask=inside, other=0.0)
    x = value.to(tl.float32)
    if KIND == "silu":
        y = x / (1.0 + tl.exp(-x))
    elif KIND == "gelu":
        y = erf_gelu(x)
    elif KIND == "gelu_tanh":
        y = tanh_gelu(x)
    elif KIND == "quick_gelu":
        y = x / (1.0 + tl.exp(-1.702 * x))
    elif KIND == "relu":
        y = tl.where(x < 0.0, 0.0, x)  # what is no number stays none
    else:
        y = tl.where(x < 0.0, 0.0, x * x)
    if GATED:
        other = tl.load(up + row // LINES * up_group + row % LINES * up_line + i, mask=inside, other=0.0)
        y = y.to(value.dtype).to(tl.float32) * other.to(tl.float32)
    tl.store(out + row * n + i, y.to(value.dtype), mask=inside)


def _run(kind: str, gate: Tensor, up: Tensor | None) -> Tensor | None:
    """None where the parts lie in a way that the kernel does not read."""
    rows, others = rows_of(gate), rows_of(up) if up is not None else (1, 0, 0)
    if rows is None or others is None or (up is not None and (rows[0] != others[0] or up.dtype != gate.dtype)):
        return None
    n, out = gate.shape[-1], gate.new_empty(gate.shape)
    if out.numel():
        tile = min(MOST, padded(n))
        activate[(out.numel() // n, -(-n // tile))](
            gate, up, out, n, rows[1], rows[2], others[1], others[2], LINES=rows[0], TILE=tile, KIND=kind, GATED=up is not None,
            num_warps=4,
        )  # fmt: skip
    return out


class TritonActivation:
    """Fills one `sdk.layers.Activation` whose name is in `KINDS`."""

    def __init__(self, layer: Activation) -> None:
        self.layer, self.kind = layer, KINDS[layer.name]

    def __call__(self, x: Tensor) -> Tensor:
        out = _run(self.kind, x, None)
        return self.layer.reference(x) if out is None else out


class TritonActivationAndMul:
    """Fills one `sdk.layers.ActivationAndMul` whose name is in `KINDS`."""

    def __init__(self, layer: ActivationAndMul) -> None:
        self.layer, self.kind = layer, KINDS[layer.name]

    def __call__(self, gate: Tensor, up: Tensor) -> Tensor:
        out = _run(self.kind, gate, up)
        return self.layer.reference(gate, up) if out is None else out

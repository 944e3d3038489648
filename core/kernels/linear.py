"""Linear layers on a CPU: the weight is reordered once for oneDNN, which then reads it at the memory's full speed.

torch's plain `linear` reads a bfloat16 weight at about half of that with few rows (see docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdk.layers.linear import Linear

from .weight_memory import in_huge_pages

ROWS_HINT = 64
"""What oneDNN is told to expect; a weight packed for one number of rows serves all."""


def can_pack(weight: Tensor) -> bool:
    """Whether this build of torch can reorder this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class PackedLinear:
    """`x @ W.T + b` with a reordered weight. Shapes: `(..., input) -> (..., output)`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        self.packed, self._memory = in_huge_pages(packed)
        self.bias = bias
        self.product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self.product(x, self.packed, self.bias, "none", [], "")
        return out


def pack(layer: Linear, *, keep_weight: bool) -> None:
    """Fill a linear layer with its packed form.

    Args:
        layer: A layer whose weights are loaded.
        keep_weight: Another layer reads the plain weight too (tied embeddings), so it is not freed.
    """
    from .choice import packed_linear  # which chooses among the forms of this

    weight = layer.weight.data
    if not can_pack(weight):
        return
    layer.fill(packed_linear(weight, layer.bias.data if layer.bias is not None else None))
    if not keep_weight:
        layer.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)

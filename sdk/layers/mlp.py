"""The gated MLP that most decoders have."""

from __future__ import annotations

from torch import Tensor, nn

from .activation import ActivationAndMul
from .linear import MergedColumnParallelLinear, RowParallelLinear


class GatedMLP(nn.Module):
    """`down(act(gate(x)) * up(x))` (Shazeer 2020).

    Args:
        hidden_size: Width of `x`.
        intermediate_size: Width between.
        activation: Its HF name.
        bias: Whether the three products have one.

    Shapes: `(..., hidden_size) -> (..., hidden_size)`.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str, bias: bool = False) -> None:
        super().__init__()
        sizes = [intermediate_size] * 2
        self.gate_up_proj = MergedColumnParallelLinear(hidden_size, sizes, bias, parts=("gate_proj", "up_proj"))
        self.act_fn = ActivationAndMul(activation)
        self.down_proj = RowParallelLinear(intermediate_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x)
        out: Tensor = self.down_proj(self.act_fn(gate, up))
        return out

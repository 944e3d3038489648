"""The MLPs of transformers: plain, as encoders have it, and gated, as most decoders do."""

from __future__ import annotations

from torch import Tensor, nn

from .activation import Activation, ActivationAndMul
from .linear import ColumnParallelLinear, MergedColumnParallelLinear, RowParallelLinear


class MLP(nn.Module):
    """`fc2(act(fc1(x)))` (Vaswani et al. 2017).

    Args:
        hidden_size: Width of `x`.
        intermediate_size: Width between.
        activation: Its HF name.
        bias: Whether the two products have one.

    Shapes: `(..., hidden_size) -> (..., hidden_size)`.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str, bias: bool = True) -> None:
        super().__init__()
        self.fc1 = ColumnParallelLinear(hidden_size, intermediate_size, bias)
        self.activation_fn = Activation(activation)
        self.fc2 = RowParallelLinear(intermediate_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return out


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

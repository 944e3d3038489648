"""The gated short convolution, which stands in the place of attention in most layers of LFM2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from .causal_conv import CausalConv1d
from .linear import MergedColumnParallelLinear, RowParallelLinear
from .state import StateKind, StateLayer, StateSpec


class ShortConv(StateLayer):
    """`out(C * conv(B * x))`, where `B`, `C` and `x` are projections of the input (LFM2, Liquid AI 2025).

    Args:
        hidden_size: Width of the input.
        width: How many tokens the convolution sees.
        bias: Whether the projections and the convolution have one.

    Shapes: `(tokens, hidden) -> (tokens, hidden)`.
    """

    kind: ClassVar[StateKind] = "convolution"

    def __init__(self, hidden_size: int, width: int, bias: bool = False, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.hidden_size, self.width = hidden_size, width
        self.in_proj = MergedColumnParallelLinear(hidden_size, [hidden_size] * 3, bias, parts=("B", "C", "x"))
        self.conv = CausalConv1d(hidden_size, width, bias)
        self.out_proj = RowParallelLinear(hidden_size, hidden_size, bias)

    def state_specs(self) -> Mapping[str, StateSpec]:
        return {"conv": StateSpec((self.width - 1, self.hidden_size))}

    def forward(self, x: Tensor) -> Tensor:
        b, c, x = self.in_proj(x)
        out: Tensor = self.out_proj(c * self.recur(b * x))
        return out

    def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # one input
        out: Tensor
        out, state["conv"] = self.conv(x, state["conv"])
        return out

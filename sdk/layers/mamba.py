"""Mamba's mixer (Gu & Dao 2023): a state space model whose step, input and output depend on the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import Activation, ActivationAndMul
from .base import Layer
from .causal_conv import CausalConv1d
from .linear import ColumnParallelLinear, MergedColumnParallelLinear, RowParallelLinear
from .norm import RMSNorm
from .state import StateKind, StateLayer, StateSpec


class SelectiveScan(Layer):
    """`h ← exp(dt A) h + dt B x`, `y = C h`: for each channel a state of `state_size` numbers (section 3.2).

    Shapes: x and dt `(sequences, n, channels)`, a `(state_size, channels)`, b and c `(sequences, n, state_size)`, state
    `(sequences, state_size, channels)` → y `(sequences, n, channels)` and the state after; all float32. A kernel may write the
    state after in the place of the one before.
    """

    def reference(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        out, added = torch.empty_like(x), dt * x
        for t in range(x.shape[1]):
            state = torch.exp(dt[:, t, None] * a) * state + b[:, t, :, None] * added[:, t, None]
            out[:, t] = (c[:, t, None] @ state).squeeze(1)
        return out, state


class MambaMixer(StateLayer):
    """A gated short convolution and a selective scan, in the place of attention.

    Args:
        hidden_size: Width of the input.
        inner_size: Channels of the scan.
        state_size: Numbers that a channel keeps.
        conv_width: How many tokens the convolution sees.
        time_step_rank: Width that the step sizes are projected through.
        bias: Whether the outer projections have one.
        conv_bias: Whether the convolution has one.
        activation: Its HF name.
        norm_eps: Of norms over the step sizes, `B` and `C`, as Jamba has them; None: there are none.

    Shapes: `(tokens, hidden) -> (tokens, hidden)`.
    """

    kind: ClassVar[StateKind] = "state-space"

    def __init__(
        self,
        hidden_size: int,
        inner_size: int,
        state_size: int,
        conv_width: int,
        time_step_rank: int,
        *,
        bias: bool = False,
        conv_bias: bool = True,
        activation: str = "silu",
        norm_eps: float | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.inner_size, self.state_size, self.conv_width = inner_size, state_size, conv_width
        self.in_proj = MergedColumnParallelLinear(hidden_size, [inner_size] * 2, bias, parts=("x", "gate"))
        self.conv1d = CausalConv1d(inner_size, conv_width, conv_bias)
        self.act_fn = Activation(activation)
        sizes = [time_step_rank, state_size, state_size]
        self.x_proj = MergedColumnParallelLinear(inner_size, sizes, bias=False, parts=("dt", "B", "C"))
        self.dt_proj = ColumnParallelLinear(time_step_rank, inner_size)
        self.A_log = nn.Parameter(torch.empty(inner_size, state_size), requires_grad=False)
        self.D = nn.Parameter(torch.empty(inner_size), requires_grad=False)
        self.scan = SelectiveScan()
        self.gate_fn = ActivationAndMul("silu")
        self.out_proj = RowParallelLinear(inner_size, hidden_size, bias)
        norms = (nn.Identity() if norm_eps is None else RMSNorm(size, norm_eps) for size in sizes)
        self.dt_layernorm, self.b_layernorm, self.c_layernorm = norms

    def state_specs(self) -> Mapping[str, StateSpec]:
        return {
            "conv": StateSpec((self.conv_width - 1, self.inner_size)),
            "ssm": StateSpec((self.state_size, self.inner_size), torch.float32),
        }

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x)
        out: Tensor = self.out_proj(self.gate_fn(gate, self.recur(x)))
        return out

    def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # one input
        x, state["conv"] = self.conv1d(x, state["conv"])
        x = self.act_fn(x)
        dt, b, c = self.x_proj(x)
        dt, b, c = self.dt_layernorm(dt), self.b_layernorm(b), self.c_layernorm(c)
        dt, wide = F.softplus(self.dt_proj(dt).float()), x.float()
        a = -torch.exp(self.A_log.float()).t()
        y, state["ssm"] = self.scan(wide, dt, a, b.float(), c.float(), state["ssm"])
        out: Tensor = y + wide * self.D.float()
        return out.to(x.dtype)

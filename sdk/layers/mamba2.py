"""Mamba-2's mixer (Dao & Gu 2024): a state space model with one decay a head, which makes its scan a product of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import Activation
from .base import Layer
from .causal_conv import CausalConv1d
from .linear import MergedColumnParallelLinear, RowParallelLinear
from .state import StateKind, StateLayer, StateSpec

CHUNK = 64
"""Tokens that are computed as one product: work grows with it, and so does what a product reuses."""


class StateSpaceDual(Layer):
    """`h ← exp(dt A) h + dt x Bᵀ`, `y = h C`, for matrices `h` with one `A` a head, chunk by chunk (section 6).

    Within a chunk a token sees the others as in attention, with products of decays for weights; what came before it sees
    through the state.

    Shapes: x `(sequences, n, heads, head_dim)`, dt `(sequences, n, heads)`, a `(heads,)`, b and c
    `(sequences, n, groups, state_size)`, of which heads share one, state `(sequences, heads, head_dim, state_size)` → y as x,
    and the state after; all float32. A kernel may write the state after in the place of the one before.
    """

    def reference(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        share = x.shape[2] // b.shape[2]
        if x.shape[1] == 1:
            return self._token(x, dt, a, b, c, share, state)
        made = []
        for start in range(0, x.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            y, state = self._chunk(x[:, part], dt[:, part], a, b[:, part], c[:, part], share, state)
            made.append(y)
        return torch.cat(made, dim=1), state

    def _token(
        self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, share: int, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The recurrence itself, for one token of each sequence."""
        x, dt = x[:, 0], dt[:, 0]
        b, c = (each[:, 0].repeat_interleave(share, dim=1) for each in (b, c))
        state = torch.addcmul((dt * a).exp()[..., None, None] * state, (x * dt[..., None])[..., None], b[:, :, None])
        return (state @ c[..., None]).squeeze(-1)[:, None], state

    def _chunk(
        self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, share: int, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = (x * dt[..., None]).transpose(1, 2)  # (sequences, heads, n, head_dim)
        b, c = b.transpose(1, 2), c.transpose(1, 2)
        scores = (c @ b.transpose(-1, -2)).repeat_interleave(share, dim=1)
        b, c = (each.repeat_interleave(share, dim=1) for each in (b, c))
        since = (dt * a).transpose(1, 2).cumsum(dim=-1)  # logarithm of the decay from the chunk's beginning on
        later = torch.ones(since.shape[-1], since.shape[-1], dtype=torch.bool, device=x.device).triu(1)
        between = (since[..., :, None] - since[..., None, :]).masked_fill(later, float("-inf"))
        within = (scores * between.exp()) @ x
        before = (c @ state.transpose(-1, -2)) * since.exp()[..., None]
        left = (since[..., -1:] - since).exp()[..., None]  # of what a token adds, at the chunk's end
        state = state * since[..., -1:, None].exp() + (x * left).transpose(-1, -2) @ b
        return (within + before).transpose(1, 2), state


class GatedRMSNorm(Layer):
    """Root-mean-square normalisation of `x * silu(gate)`, group by group, in float32.

    Args:
        hidden_size: Width of `x`.
        num_groups: Parts of it that are normalised by themselves.
        eps: Added to the mean square.

    Shapes: two of `(..., hidden)` → `(..., hidden)`.
    """

    def __init__(self, hidden_size: int, num_groups: int, eps: float, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.empty(hidden_size), requires_grad=False)

    def reference(self, x: Tensor, gate: Tensor) -> Tensor:
        wide = x.float() * F.silu(gate.float())
        groups = wide.view(*x.shape[:-1], self.num_groups, -1)
        groups = groups * torch.rsqrt(groups.pow(2).mean(-1, keepdim=True) + self.eps)
        return groups.view(x.shape).to(x.dtype) * self.weight


class MambaMixer2(StateLayer):
    """A short convolution and a scan over matrices, gated and normalised, in the place of attention.

    Args:
        hidden_size: Width of the input.
        num_heads: Of the scan.
        head_dim: Width of a head.
        state_size: Columns of a head's state.
        num_groups: How many `B` and `C` the heads share.
        conv_width: How many tokens the convolution sees.
        norm_eps: Of the gated norm.
        bias: Whether the outer projections have one.
        conv_bias: Whether the convolution has one.
        activation: Its HF name.
        time_step_limit: Between which a step size stays, for prompts and for decoding.

    Shapes: `(tokens, hidden) -> (tokens, hidden)`.
    """

    kind: ClassVar[StateKind] = "state-space"

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        state_size: int,
        num_groups: int,
        conv_width: int,
        *,
        norm_eps: float = 1e-5,
        bias: bool = False,
        conv_bias: bool = True,
        activation: str = "silu",
        time_step_limit: tuple[float, float] = (0.0, float("inf")),
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim, self.inner_size = num_heads, head_dim, num_heads * head_dim
        self.state_size, self.num_groups, self.conv_width = state_size, num_groups, conv_width
        self.time_step_limit = time_step_limit
        self.conv_size = self.inner_size + 2 * num_groups * state_size
        sizes = [self.inner_size, self.conv_size, num_heads]
        self.in_proj = MergedColumnParallelLinear(hidden_size, sizes, bias, parts=("gate", "xBC", "dt"))
        self.conv1d = CausalConv1d(self.conv_size, conv_width, conv_bias)
        self.act_fn = Activation(activation)
        self.dt_bias = nn.Parameter(torch.empty(num_heads), requires_grad=False)
        self.A_log = nn.Parameter(torch.empty(num_heads), requires_grad=False)
        self.D = nn.Parameter(torch.empty(num_heads), requires_grad=False)
        self.scan = StateSpaceDual()
        self.norm = GatedRMSNorm(self.inner_size, num_groups, norm_eps)
        self.out_proj = RowParallelLinear(self.inner_size, hidden_size, bias)

    def state_specs(self) -> Mapping[str, StateSpec]:
        return {
            "conv": StateSpec((self.conv_width - 1, self.conv_size)),
            "ssm": StateSpec((self.num_heads, self.head_dim, self.state_size), torch.float32),
        }

    def forward(self, x: Tensor) -> Tensor:
        gate, x_b_c, dt = self.in_proj(x)
        out: Tensor = self.out_proj(self.norm(self.recur(x_b_c, dt), gate))
        return out

    def advance(self, x_b_c: Tensor, dt: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        x_b_c, state["conv"] = self.conv1d(x_b_c, state["conv"])
        shared = self.num_groups * self.state_size
        x, b, c = self.act_fn(x_b_c).float().split([self.inner_size, shared, shared], dim=-1)
        x = x.view(*x.shape[:-1], self.num_heads, self.head_dim)
        b, c = (each.view(*each.shape[:-1], self.num_groups, self.state_size) for each in (b, c))
        dt = F.softplus(dt.float() + self.dt_bias.float()).clamp(*self.time_step_limit)
        y, state["ssm"] = self.scan(x, dt, -torch.exp(self.A_log.float()), b, c, state["ssm"])
        out: Tensor = (y + x * self.D.float()[:, None]).flatten(-2)
        return out.to(x_b_c.dtype)

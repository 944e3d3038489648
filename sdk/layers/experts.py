"""Mixture of experts: a router that chooses a few MLPs for each token, and the MLPs themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import ActivationAndMul
from .base import Layer
from .linear import ReplicatedLinear


class TopKRouter(ReplicatedLinear):
    """Which experts compute a token, and how much each counts (Shazeer et al. 2017).

    Args:
        hidden_size: Width of `x`.
        num_experts: How many there are.
        top_k: How many compute each token.
        normalize: Whether the chosen experts' weights are divided by their sum.

    Shapes: x `(tokens, hidden_size)` → weights `(tokens, top_k)` float32, chosen `(tokens, top_k)` int64.
    """

    def __init__(
        self, hidden_size: int, num_experts: int, top_k: int, *, normalize: bool = True, prefix: str = ""
    ) -> None:
        super().__init__(hidden_size, num_experts, bias=False, prefix=prefix)
        self.top_k, self.normalize = top_k, normalize

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = scores.float().softmax(dim=-1).topk(self.top_k, dim=-1)
        return (weights / weights.sum(dim=-1, keepdim=True) if self.normalize else weights), chosen

    def reference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._choose(self.product(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._choose(self.matmul(x))


class Experts(Layer):
    """Gated MLPs side by side, of which each token runs the chosen ones and adds up their outputs.

    A checkpoint may store each expert by itself, `0.w1.weight` and so on, or all of them stacked as here.

    Args:
        num_experts: How many there are.
        hidden_size: Width of `x`.
        intermediate_size: Width between, of one expert.
        activation: Its HF name.
        parts: What the checkpoint calls the gate, up and down projections of one expert.

    Shapes: x `(tokens, hidden_size)`, weights `(tokens, k)`, chosen `(tokens, k)` int → `(tokens, hidden_size)`.
    """

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        *,
        parts: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.num_experts, self.hidden_size, self.intermediate_size = num_experts, hidden_size, intermediate_size
        self.parts = tuple(parts)
        self.gate_up_proj = nn.Parameter(
            torch.empty(num_experts, 2 * intermediate_size, hidden_size), requires_grad=False
        )
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size), requires_grad=False)
        self.act_fn = ActivationAndMul(activation)

    def part_tensors(self) -> Mapping[str, tuple[str, slice]]:
        gate, up, down = self.parts
        inner, hidden = self.intermediate_size, self.hidden_size
        found: dict[str, tuple[str, slice]] = {}
        for i in range(self.num_experts):
            first = 2 * i * inner
            found[f"{i}.{gate}.weight"] = "gate_up_proj", slice(first, first + inner)
            found[f"{i}.{up}.weight"] = "gate_up_proj", slice(first + inner, first + 2 * inner)
            found[f"{i}.{down}.weight"] = "down_proj", slice(i * hidden, (i + 1) * hidden)
        return found

    def reference(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for expert in sorted(set(chosen.flatten().tolist())):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            gate, up = F.linear(x[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            made = F.linear(self.act_fn(gate, up), self.down_proj[expert])
            out.index_add_(0, token, (made * weights[token, place, None]).to(out.dtype))
        return out

    def extra_repr(self) -> str:
        return f"{self.num_experts} of {self.hidden_size} -> {self.intermediate_size} -> {self.hidden_size}"

"""Mixtures of experts on a CPU: every expert's weights packed, tokens grouped by the experts they chose.

An expert that no token of the step chose is not read: decoding one token costs its own experts' weights and no more. The
specification is `sdk.layers.Experts.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdk.layers import Experts

from ..recording.tape import anew
from .linear import can_pack


class PackedExperts:
    """Fills one `sdk.layers.Experts`. Shapes: as of the layer."""

    def __init__(self, layer: Experts) -> None:
        from .choice import packed_linear

        self.act_fn = layer.act_fn
        self.gate_up = [packed_linear(weight, None) for weight in layer.gate_up_proj.data.unbind()]
        self.down = [packed_linear(weight, None) for weight in layer.down_proj.data.unbind()]

    @anew
    def __call__(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        if len(x) == 1:
            return self._one(x, weights[0], chosen[0].tolist())
        out, k = torch.zeros_like(x), chosen.shape[1]
        # All choices sorted by expert: those of one expert lie side by side, a token's in the order of its experts.
        order = chosen.flatten().argsort(stable=True)
        tokens, shares = order // k, weights.flatten()[order].unsqueeze(-1)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.down)).tolist()
        first = 0
        for expert, count in enumerate(counts):
            if count:
                rows = slice(first, first + count)
                made = self._expert(expert, x[tokens[rows]])
                out.index_add_(0, tokens[rows], (made * shares[rows]).to(out.dtype))
                first += count
        return out

    def _one(self, x: Tensor, weights: Tensor, experts: list[int]) -> Tensor:
        """A single token: its experts in the same order as in a batch, so that the sum is the same."""
        out = torch.zeros_like(x)
        for place in sorted(range(len(experts)), key=experts.__getitem__):
            out += (self._expert(experts[place], x) * weights[place]).to(out.dtype)
        return out

    def _expert(self, expert: int, x: Tensor) -> Tensor:
        gate, up = self.gate_up[expert](x).chunk(2, dim=-1)
        return self.down[expert](self.act_fn(gate, up))


def pack_experts(layer: Experts) -> None:
    """Fill a layer whose weights are loaded with its packed form, and free the plain weights."""
    if not can_pack(layer.gate_up_proj):
        return
    layer.fill(PackedExperts(layer))
    for name in ("gate_up_proj", "down_proj"):
        empty = getattr(layer, name).new_empty(0)
        setattr(layer, name, nn.Parameter(empty, requires_grad=False))

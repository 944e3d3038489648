"""Mixtures of experts in Triton: the products of all experts in one launch each, laid out without waiting for the device.

The specification is `sdk.layers.Experts.reference`. A *choice* is a token and one of the experts that it chose. Choices are
sorted by expert; a tile of rows holds choices of one expert alone. How many tiles an expert has only the device knows: as
many programs start as there can be tiles at most, and those without one end at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdk.layers import Experts

from .common import padded

OUTPUTS = 64
"""Outputs of a tile."""


@triton.jit
def multiply(x, weight, order, ends, tiles, shares, out, experts, outputs, n, x_row, CHOICES: tl.constexpr, ROWS: tl.constexpr,
             OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, EXPERTS: tl.constexpr, SHARES: tl.constexpr):  # fmt: skip
    """Programs: (tile of outputs, tile of choices). `out[choice] = weight[expert] @ x[choice // CHOICES]`, times its share.

    `weight` is `(experts, outputs, n)`; `ends` and `tiles` say up to which place of `order`, and up to which tile, an expert
    goes.
    """
    e, tile = tl.arange(0, EXPERTS), tl.program_id(1)
    done = tl.load(tiles + e, mask=e < experts, other=0)
    expert = tl.sum(((done <= tile) & (e < experts)).to(tl.int32), 0)
    if expert < experts:
        begun = tl.max(tl.where(e < expert, done, 0), 0)
        first = tl.max(tl.where(e < expert, tl.load(ends + e, mask=e < expert, other=0), 0), 0)
        place = first + (tile - begun) * ROWS + tl.arange(0, ROWS)
        present = place < tl.load(ends + expert)
        choice = tl.load(order + place, mask=present, other=0)
        o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
        weights = weight + (expert.to(tl.int64) * outputs + o.to(tl.int64)[None, :]) * n
        total = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
        for start in range(0, n, DEPTH):
            i = start + tl.arange(0, DEPTH)
            rows = tl.load(x + (choice // CHOICES)[:, None] * x_row + i[None, :], mask=present[:, None] & (i < n)[None, :],
                           other=0.0)  # fmt: skip
            columns = tl.load(weights + i[:, None], mask=(o < outputs)[None, :] & (i < n)[:, None], other=0.0)
            total += tl.dot(rows, columns, input_precision="ieee")
        if SHARES:
            made = total.to(x.dtype.element_ty).to(tl.float32)
            total = made * tl.load(shares + choice, mask=present, other=0.0)[:, None]
        tl.store(out + choice[:, None] * outputs + o[None, :], total.to(out.dtype.element_ty),
                 mask=present[:, None] & (o < outputs)[None, :])  # fmt: skip


class TritonExperts:
    """Fills one `sdk.layers.Experts`. Shapes: as of the layer. What a token's experts make is added up in float32."""

    def __init__(self, layer: Experts) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        layer, (tokens, top_k) = self.layer, chosen.shape
        if not tokens:
            return torch.zeros_like(x)
        flat, experts = chosen.flatten().long(), layer.num_experts
        choices = tokens * top_k
        rows = min(64, padded(choices // experts, 16))
        order = flat.argsort(stable=True)
        # Not `bincount`: it waits for the device to learn the largest.
        counts = torch.zeros(experts, dtype=torch.int64, device=x.device).scatter_add_(0, flat, torch.ones_like(flat))
        ends, tiles = counts.cumsum(0), ((counts + rows - 1) // rows).cumsum(0)
        most = choices // rows + min(experts, choices)

        def product(x: Tensor, weight: Tensor, per_row: int, shares: Tensor | None, dtype: torch.dtype) -> Tensor:
            outputs, n = weight.shape[1:]
            out = x.new_empty(choices, outputs, dtype=dtype)
            multiply[(-(-outputs // OUTPUTS), most)](
                x, weight, order, ends, tiles, shares, out, experts, outputs, n, x.stride(0), CHOICES=per_row, ROWS=rows,
                OUTPUTS=OUTPUTS, DEPTH=32 if x.element_size() > 2 else 64, EXPERTS=padded(experts), SHARES=shares is not None,
                num_warps=4,
            )  # fmt: skip
            return out

        x = x if x.stride(-1) == 1 else x.contiguous()
        gate, up = product(x, layer.gate_up_proj, top_k, None, x.dtype).chunk(2, dim=-1)
        inner = layer.act_fn(gate, up)
        made = product(inner, layer.down_proj, 1, weights.float().flatten(), torch.float32)
        return made.view(tokens, top_k, -1).sum(1).to(x.dtype)

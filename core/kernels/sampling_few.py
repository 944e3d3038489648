"""Draws on a CPU that sort a row's likeliest tokens alone: what is drawn is almost always one of them. The specification is
`core.kernels.sampling`, which still draws for rows where they do not tell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .sampling import Draws, penalise, scale
from .sampling import draw as draw_sorted

FEW = 256
"""Tokens that are sorted."""


def draw(logits: Tensor, draws: Draws) -> Tensor:
    """See `Draw`."""
    if logits.shape[-1] <= 2 * FEW:
        return draw_sorted(logits, draws)
    out, told = _draw_few(logits, draws)
    rest = np.flatnonzero(~told.numpy())
    if len(rest):
        at = torch.from_numpy(rest)
        out[at] = draw_sorted(logits.index_select(0, at), draws.some(rest))
    return out


def _draw_few(logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """The token of each row, and whether the likeliest ones tell it."""
    temperature, top_k, top_p, min_p, u = map(
        torch.from_numpy, (draws.temperature, draws.top_k, draws.top_p, draws.min_p, draws.u)
    )
    scaled = scale(logits, temperature)
    ids = scaled.topk(FEW, dim=-1, sorted=False).indices.sort(dim=-1).values
    top, order = scaled.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    # A token as likely as the last of these may be left out for one of a higher id: only those before are certain.
    certain = (top > top[:, -1:]).sum(dim=-1)
    sums = top.double().exp().cumsum(dim=-1)
    limited = top_k > 0
    of_top_k = sums.gather(1, (top_k - 1).clamp(0, FEW - 1)[:, None])
    whole = torch.where(limited[:, None], of_top_k, scaled.double().exp_().sum(dim=-1, keepdim=True))
    cumulative = sums / whole
    # The place of the last token that may come, by each bound; one that nothing bounds lies past the end.
    last = torch.where(limited, top_k - 1, FEW)
    last = torch.minimum(last, torch.where(top_p < 1, (cumulative < top_p[:, None]).sum(dim=-1), FEW))
    last = torch.minimum(last, torch.where(min_p > 0, (top.double() >= min_p.log()[:, None]).sum(dim=-1) - 1, FEW))
    place = last.clamp(0, FEW - 1)[:, None]
    total = torch.where(last[:, None] < FEW, cumulative.gather(1, place), 1.0)
    at = torch.searchsorted(cumulative, u[:, None] * total, right=True).clamp(max=place)
    unbounded = ~limited & (top_p >= 1) & (min_p <= 0)
    told = torch.where(unbounded, at.squeeze(1), last) < certain
    told &= top_k <= certain  # of more than are certain the sum is not known
    return ids.gather(1, order.gather(1, at)).squeeze(1), told


__all__ = ["draw", "penalise"]

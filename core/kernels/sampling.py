"""Draws a token of each row: temperature, top-k, top-p, min-p, and one inversion of the cumulative distribution; penalties.

What stands here is the specification, and what runs where nothing faster is at hand. It sorts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..transfer import send

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """What rows ask of their draw; every array is `(rows,)`.

    Attributes:
        temperature: Divides the logits.
        top_k: Tokens that may come, the likeliest; 0: all.
        top_p: The likeliest tokens that together reach this probability may come.
        min_p: Tokens of at least this share of the likeliest one's probability may come.
        u: Where the draw falls, in [0, 1).
    """

    temperature: Floats
    top_k: NDArray[np.int64]
    top_p: Floats
    min_p: Floats
    u: Floats

    def __len__(self) -> int:
        return len(self.u)

    def some(self, rows: NDArray[np.int64]) -> Draws:
        """Of some rows."""
        return Draws(self.temperature[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows], self.u[rows])


Likeliest = Callable[[Tensor], Tensor]
"""`(rows, vocab)` logits → `(2, rows)` int64: the likeliest token of each row, of equal ones that with the lowest id; and whether
its logit is finite, and no logit of the row NaN."""


Draw = Callable[[Tensor, Draws], Tensor]
"""`(rows, vocab)` float32 logits, what their rows ask → `(rows,)` token ids. A row without a finite logit gets any."""


Penalise = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""Changes logits `(rows, vocab)` float32 in place. An entry is one token of one row, and none comes twice; of each, all
`(entries,)`: row, token, how often the output has it, and the repetition, frequency and presence penalty."""


def likeliest(logits: Tensor) -> Tensor:
    """See `Likeliest`."""
    best, tokens = logits.max(dim=-1)
    return torch.stack((tokens, best.isfinite().long()))


def penalise(
    logits: Tensor, rows: Tensor, ids: Tensor, times: Tensor, repetition: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """See `Penalise`."""
    values = logits[rows, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= frequency * times
    values -= presence * (times > 0)
    logits[rows, ids] = values


def scale(logits: Tensor, temperature: Tensor) -> Tensor:
    """Logits as differences from each row's maximum, divided by its temperature; as differences, a tiny one does not overflow."""
    return (logits - logits.max(dim=-1, keepdim=True).values) / temperature.float().clamp(min=1e-6)[:, None]


def draw(logits: Tensor, draws: Draws) -> Tensor:
    """See `Draw`. Of equal logits the one with the lower id counts as the likelier."""
    temperature, top_k, top_p, min_p, u = (
        send(x, logits.device) for x in (draws.temperature, draws.top_k, draws.top_p, draws.min_p, draws.u)
    )
    ordered, ids = scale(logits, temperature).sort(dim=-1, descending=True, stable=True)
    place = torch.arange(logits.shape[-1], device=logits.device)
    ordered = ordered.masked_fill((top_k[:, None] > 0) & (place >= top_k[:, None]), -torch.inf)
    cumulative = ordered.double().softmax(dim=-1).cumsum(dim=-1)
    # Tokens up to the first whose cumulative probability reaches top_p stay: always at least one. The likeliest has
    # the logarithm 0 here, so min_p is a bound on the rest; it keeps the first, too.
    kept = (cumulative < top_p[:, None]).sum(dim=-1).clamp(max=ordered.shape[-1] - 1)
    kept = torch.minimum(kept, (ordered.double() >= min_p.log()[:, None]).sum(dim=-1) - 1).clamp(min=0)
    total = cumulative.gather(1, kept[:, None])
    at = torch.searchsorted(cumulative, u[:, None] * total, right=True).clamp(max=kept[:, None])
    return ids.gather(1, at).squeeze(1)

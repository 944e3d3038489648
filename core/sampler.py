"""From logits to tokens, for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .request import Request


@dataclass
class Sampled:
    """What was sampled for the rows of a step.

    Attributes:
        tokens: `(rows,)` chosen token ids.
        bad: `(rows,)` bool: the row has NaN or no finite maximum, and its token means nothing.
        logprobs: For each row that asked: the chosen token's logprob and rank, and the likeliest tokens with theirs.
    """

    tokens: NDArray[np.int64]
    bad: NDArray[np.bool_]
    logprobs: dict[int, tuple[float, int, list[int], list[float]]]


def uniform(seeds: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, counter), by SplitMix64 (Steele et al. 2014): a draw depends on nothing else."""
    with np.errstate(over="ignore"):
        z = seeds + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z = z ^ (z >> np.uint64(31))
    out: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


def sample(logits: Tensor, requests: Sequence[Request]) -> Sampled:
    """Choose the next token of each request.

    Args:
        logits: `(rows, vocab)`, any float dtype.
        requests: One for each row.
    """
    best, greedy = logits.max(dim=-1)
    bad = ~torch.isfinite(best).cpu().numpy()
    tokens = greedy.cpu().numpy().copy()
    drawn: dict[int, list[int]] = {}
    for i, r in enumerate(requests):
        if not r.params.greedy and not bad[i]:
            k = r.params.top_k
            drawn.setdefault(k if 0 < k < logits.shape[-1] else 0, []).append(i)
    for top_k, rows in drawn.items():
        tokens[rows] = _draw(logits[rows].float().cpu(), [requests[i] for i in rows], top_k)
    wanted = [i for i, r in enumerate(requests) if r.params.logprobs is not None and not bad[i]]
    return Sampled(tokens, bad, _logprobs(logits, tokens, wanted, requests) if wanted else {})


def _draw(logits: Tensor, requests: Sequence[Request], top_k: int) -> NDArray[np.int64]:
    """Temperature, then top-k, then top-p, then one draw a row by inverting the cumulative distribution.

    All rows have one `top_k` (0: none): which of equal logits are kept must not depend on what other rows ask for.
    """
    # Divided as differences from the maximum: a tiny temperature must not overflow.
    temperature = torch.tensor([r.params.temperature for r in requests]).clamp(min=1e-6)
    scaled = (logits - logits.max(dim=-1, keepdim=True).values) / temperature[:, None]
    top_p = torch.tensor([r.params.top_p for r in requests], dtype=torch.float64)
    ordered, ids = torch.topk(scaled, top_k, dim=-1) if top_k else scaled.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.double().softmax(dim=-1).cumsum(dim=-1)
    # Tokens up to the first whose cumulative probability reaches top_p stay: always at least one.
    kept = (cumulative < top_p[:, None]).sum(dim=-1).clamp(max=ordered.shape[-1] - 1)
    total = cumulative.gather(1, kept[:, None])
    u = uniform(
        np.array([r.seed for r in requests], dtype=np.uint64),
        np.array([r.output_len for r in requests], dtype=np.uint64),
    )
    at = torch.searchsorted(cumulative, torch.from_numpy(u)[:, None] * total, right=True).clamp(max=kept[:, None])
    chosen: NDArray[np.int64] = ids.gather(1, at).squeeze(1).numpy()
    return chosen


def _logprobs(
    logits: Tensor, tokens: NDArray[np.int64], rows: Sequence[int], requests: Sequence[Request]
) -> dict[int, tuple[float, int, list[int], list[float]]]:
    logprobs = logits[rows].float().cpu().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.from_numpy(tokens[rows])[:, None])
    ranks = (logprobs > chosen).sum(dim=-1) + 1
    most = max(requests[i].params.logprobs or 0 for i in rows)
    top, ids = logprobs.topk(min(most, logprobs.shape[-1]), dim=-1)
    out = {}
    for j, i in enumerate(rows):
        k = requests[i].params.logprobs or 0
        out[i] = (float(chosen[j]), int(ranks[j]), ids[j, :k].tolist(), top[j, :k].tolist())
    return out

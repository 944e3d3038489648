"""From logits to tokens, for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import EngineError
from .kernels.choice import draw_form, likeliest_form
from .kernels.sampling import Draws
from .logits.logprobs import TokenLogprobs, token_logprobs
from .logits.shape import Failures, nothing_left, shape
from .request import Request
from .transfer import send


@dataclass
class Sampled:
    """What was sampled for the rows of a step.

    Attributes:
        tokens: `(rows,)` chosen token ids.
        bad: `(rows,)` bool: the row has NaN or no finite maximum, and its token means nothing.
        failed: Row → what ends its request: what it asked for cannot be done. Its token means nothing.
        logprobs: For each row that asked: of the chosen token and of the likeliest, by the model's own logits.
    """

    tokens: NDArray[np.int64]
    bad: NDArray[np.bool_]
    failed: dict[int, EngineError] = field(default_factory=dict)
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)


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
    """Choose the next token of each request. What a GPU computes is waited for once, at the end.

    Args:
        logits: `(rows, vocab)`, any float dtype.
        requests: One for each row.
    """
    found = likeliest_form(logits.device)(logits)
    failed: Failures = {}
    special = [i for i, r in enumerate(requests) if not r.params.plain]
    further = [i for i in special if _looks_further(requests[i])]
    if further:
        rows = send(np.array(further), logits.device)
        scores = logits.index_select(0, rows).float()  # a copy: logprobs are of the model's own
        chosen, failed = _choose(scores, [requests[i] for i in further])
        tokens, finite = found
        found = torch.stack((tokens.index_copy(0, rows, chosen[0]), finite, finite.index_copy(0, rows, chosen[1])))
    host = found.cpu().numpy()
    out = Sampled(host[0], host[1] == 0)
    for at, i in enumerate(further):
        if not out.bad[i] and (at in failed or not host[2, i]):
            out.failed[i] = failed.get(at) or nothing_left(requests[i])
    asked = [i for i in special if requests[i].params.logprobs is not None and not out.bad[i] and i not in out.failed]
    if asked:
        wanted = [requests[i].params.logprobs or 0 for i in asked]
        some = logits.index_select(0, send(np.array(asked), logits.device))
        out.logprobs = dict(zip(asked, token_logprobs(some, torch.from_numpy(out.tokens[asked]), wanted)))
    return out


def _looks_further(request: Request) -> bool:
    """Whether the likeliest token of the model's own logits is not simply taken."""
    return request.params.shapes_logits or not request.params.greedy


def _choose(scores: Tensor, requests: Sequence[Request]) -> tuple[Tensor, Failures]:
    """Shape logits in place as their requests ask, then take the likeliest token of each or draw one.

    Returns:
        `(2, rows)`, tokens and whether there is any to choose; and row → what ends its request.
    """
    shaped = [at for at, r in enumerate(requests) if r.params.shapes_logits]
    failed = shape(scores, shaped, [requests[at] for at in shaped]) if shaped else {}
    chosen = likeliest_form(scores.device)(scores)
    drawn = [at for at, r in enumerate(requests) if not r.params.greedy and at not in failed]
    if drawn:
        rows = send(np.array(drawn), scores.device)
        some = scores if len(drawn) == len(requests) else scores.index_select(0, rows)
        asked = _draws([requests[at] for at in drawn], scores.shape[-1])
        chosen[0] = chosen[0].index_copy(0, rows, draw_form(scores.device)(some, asked))
    return chosen, failed


def _draws(requests: Sequence[Request], vocab: int) -> Draws:
    """What the rows of these requests ask of their draw."""
    params = [r.params for r in requests]
    return Draws(
        temperature=np.array([p.temperature for p in params], dtype=np.float64),
        top_k=np.array([p.top_k if 0 < p.top_k < vocab else 0 for p in params], dtype=np.int64),
        top_p=np.array([p.top_p for p in params], dtype=np.float64),
        min_p=np.array([p.min_p for p in params], dtype=np.float64),
        u=uniform(
            np.array([r.seed for r in requests], dtype=np.uint64),
            np.array([r.output_len for r in requests], dtype=np.uint64),
        ),
    )

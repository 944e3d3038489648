"""From logits to tokens, for the whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import EngineError
from .logits.logprobs import TokenLogprobs, token_logprobs
from .logits.shape import nothing_left, shape
from .request import Request


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
    """Choose the next token of each request.

    Args:
        logits: `(rows, vocab)`, any float dtype.
        requests: One for each row.
    """
    best, greedy = logits.max(dim=-1)
    out = Sampled(greedy.cpu().numpy().copy(), ~torch.isfinite(best).cpu().numpy())
    special = [i for i, r in enumerate(requests) if not r.params.plain and not out.bad[i]]
    if special:
        _choose(logits, requests, [i for i in special if _looks_further(requests[i])], out)
        asked = [i for i in special if requests[i].params.logprobs is not None and i not in out.failed]
        if asked:
            wanted = [requests[i].params.logprobs or 0 for i in asked]
            out.logprobs = dict(zip(asked, token_logprobs(logits[asked], torch.from_numpy(out.tokens[asked]), wanted)))
    return out


def _looks_further(request: Request) -> bool:
    """Whether the likeliest token of the model's own logits is not simply taken."""
    return request.params.shapes_logits or not request.params.greedy


def _choose(logits: Tensor, requests: Sequence[Request], rows: Sequence[int], out: Sampled) -> None:
    """Shape the logits of some rows as their requests ask, then take the likeliest token of each or draw one."""
    if not rows:
        return
    scores = logits[rows].float()  # a copy: logprobs are of the model's own
    shaped = [at for at, i in enumerate(rows) if requests[i].params.shapes_logits]
    if shaped:
        failed = shape(scores, shaped, [requests[rows[at]] for at in shaped])
        best, likeliest = scores.max(dim=-1)
        out.tokens[rows] = likeliest.cpu().numpy()
        finite = best.isfinite().tolist()
        failed |= {at: nothing_left(requests[rows[at]]) for at in shaped if not finite[at] and at not in failed}
        out.failed = {rows[at]: error for at, error in failed.items()}
    drawn: dict[int, list[int]] = {}
    for at, i in enumerate(rows):
        if not requests[i].params.greedy and i not in out.failed:
            k = requests[i].params.top_k
            drawn.setdefault(k if 0 < k < scores.shape[-1] else 0, []).append(at)
    for top_k, places in drawn.items():
        some = scores if len(places) == len(rows) else scores[places]
        chosen = [rows[at] for at in places]
        out.tokens[chosen] = _draw(some.cpu(), [requests[i] for i in chosen], top_k)


def _draw(logits: Tensor, requests: Sequence[Request], top_k: int) -> NDArray[np.int64]:
    """Temperature, then top-k, then top-p, then min-p, then one draw a row by inverting the cumulative distribution.

    All rows have one `top_k` (0: none): which of equal logits are kept must not depend on what other rows ask for.
    """
    # Divided as differences from the maximum: a tiny temperature must not overflow.
    temperature = torch.tensor([r.params.temperature for r in requests]).clamp(min=1e-6)
    scaled = (logits - logits.max(dim=-1, keepdim=True).values) / temperature[:, None]
    top_p = torch.tensor([r.params.top_p for r in requests], dtype=torch.float64)
    least = torch.tensor([r.params.min_p for r in requests], dtype=torch.float64).log()
    ordered, ids = torch.topk(scaled, top_k, dim=-1) if top_k else scaled.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.double().softmax(dim=-1).cumsum(dim=-1)
    # Tokens up to the first whose cumulative probability reaches top_p stay: always at least one. The likeliest has
    # the logarithm 0 here, so min_p is a bound on the rest; it keeps the first, too.
    kept = (cumulative < top_p[:, None]).sum(dim=-1).clamp(max=ordered.shape[-1] - 1)
    kept = torch.minimum(kept, (ordered.double() >= least[:, None]).sum(dim=-1) - 1)
    total = cumulative.gather(1, kept[:, None])
    u = uniform(
        np.array([r.seed for r in requests], dtype=np.uint64),
        np.array([r.output_len for r in requests], dtype=np.uint64),
    )
    at = torch.searchsorted(cumulative, torch.from_numpy(u)[:, None] * total, right=True).clamp(max=kept[:, None])
    chosen: NDArray[np.int64] = ids.gather(1, at).squeeze(1).numpy()
    return chosen

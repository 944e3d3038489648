"""Log-probabilities as the model gave them: of the tokens that were chosen, and of those of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows of a prompt whose logits are made together: a vocabulary is wide, and a prompt is long."""


class TokenLogprobs(NamedTuple):
    """One token's.

    Attributes:
        logprob, rank: Of the token; 1 is the likeliest.
        ids, logprobs: The likeliest tokens, as many as were asked for.
    """

    logprob: float
    rank: int
    ids: list[int]
    logprobs: list[float]


def token_logprobs(logits: Tensor, tokens: Tensor, wanted: Sequence[int]) -> list[TokenLogprobs]:
    """Log-probabilities of a batch of rows.

    Args:
        logits: `(rows, vocab)`.
        tokens: `(rows,)` ids; one outside the vocabulary, which stands for media, has probability 0.
        wanted: For each row, how many of the likeliest.
    """
    logprobs = logits.float().cpu().log_softmax(dim=-1)
    tokens = tokens.to(logprobs.device)
    outside = tokens >= logprobs.shape[-1]
    chosen = logprobs.gather(1, tokens.masked_fill(outside, 0)[:, None]).masked_fill(outside[:, None], -torch.inf)
    ranks = ((logprobs > chosen).sum(dim=-1) + 1).tolist()
    top, ids = logprobs.topk(min(max(wanted), logprobs.shape[-1]), dim=-1)
    rows = zip(chosen.squeeze(1).tolist(), ranks, ids.tolist(), top.tolist(), wanted)
    return [TokenLogprobs(p, rank, i[:k], t[:k]) for p, rank, i, t, k in rows]


def prompt_logprobs(
    compute_logits: Callable[[Tensor], Tensor], hidden: Tensor, next_tokens: Sequence[int], wanted: int
) -> list[TokenLogprobs] | None:
    """Log-probabilities of the tokens that follow rows of a prompt; None when the rows have NaN or infinity.

    Args:
        compute_logits: The model's.
        hidden: `(rows, hidden)`.
        next_tokens: The token after each row.
        wanted: How many of the likeliest.
    """
    found: list[TokenLogprobs] = []
    for first in range(0, len(hidden), ROWS_AT_ONCE):
        logits = compute_logits(hidden[first : first + ROWS_AT_ONCE])
        if not logits.amax(dim=-1).isfinite().all():
            return None
        tokens = torch.tensor(next_tokens[first : first + ROWS_AT_ONCE])
        found += token_logprobs(logits, tokens, [wanted] * len(tokens))
    return found

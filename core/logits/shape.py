"""A batch's logits, changed as its requests ask. A row depends on its own request and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..errors import EngineError, GrammarError, InvalidRequestError
from ..transfer import send
from .custom import run_processors
from .masks import Ids, allow, allow_bits, forbid, pairs
from .penalties import TokenCounts, penalise
from .rules import LogitsState

if TYPE_CHECKING:
    from ..request import Request

Failures = dict[int, EngineError]


def shape(logits: Tensor, rows: Sequence[int], requests: Sequence[Request]) -> Failures:
    """Change rows in place: bias, penalties, the caller's functions, then what forbids tokens.

    Args:
        logits: `(batch, vocab)` float32; the rows named are finite.
        rows: The rows that have rules.
        requests: Theirs.

    Returns:
        Row → what ends its request: a function or a grammar failed. What stands in such a row means nothing.
    """
    states = [_state_of(r) for r in requests]
    failed: Failures = {}
    _add_bias(logits, rows, states)
    _penalise(logits, rows, requests, states)
    for row, request in zip(rows, requests):
        if request.params.logits_processors:
            try:
                logits[row] = run_processors(
                    request.params.logits_processors, request.output_token_ids, logits[row].clone()
                )
            except InvalidRequestError as e:
                failed[row] = e
    _forbid(logits, rows, requests, states)
    _follow_grammars(logits, rows, requests, states, failed)
    return failed


def nothing_left(request: Request) -> EngineError:
    """What ends a request whose shaped row has no token that may be chosen."""
    if _state_of(request).cursor is not None:
        return GrammarError(
            "the grammar, together with what else is forbidden, allows no token here", code="grammar_dead_end"
        )
    return InvalidRequestError(
        "allowed_token_ids, bad_words, min_tokens and logits_processors leave no token to choose",
        code="no_token_left",
        param="sampling_params",
    )


def _state_of(request: Request) -> LogitsState:
    assert request.logits is not None, "a request whose parameters shape its logits was made without its rules"
    return request.logits


def _add_bias(logits: Tensor, rows: Sequence[int], states: Sequence[LogitsState]) -> None:
    some = [(row, s.rules) for row, s in zip(rows, states) if len(s.rules.biased)]
    if some:
        where = pairs([row for row, _ in some], [r.biased for _, r in some], logits.device)
        logits[where] += send(np.concatenate([r.bias for _, r in some]), logits.device)


def _penalise(logits: Tensor, rows: Sequence[int], requests: Sequence[Request], states: Sequence[LogitsState]) -> None:
    some: list[tuple[int, TokenCounts, Request]] = []
    for row, request, state in zip(rows, requests, states):
        if state.counts is not None:
            state.counts.advance(request.token_ids)
            some.append((row, state.counts, request))
    if some:
        penalise(logits, [row for row, _, _ in some], [c for _, c, _ in some], [r.params for _, _, r in some])


def _forbid(logits: Tensor, rows: Sequence[int], requests: Sequence[Request], states: Sequence[LogitsState]) -> None:
    only = [(row, s.rules.allowed) for row, s in zip(rows, states) if s.rules.allowed is not None]
    if only:
        allow(logits, [row for row, _ in only], [ids for _, ids in only])
    banned: list[tuple[int, Ids]] = [
        (row, ids) for row, r, s in zip(rows, requests, states) if len(ids := s.forbidden(r))
    ]
    if banned:
        forbid(logits, [row for row, _ in banned], [ids for _, ids in banned])


def _follow_grammars(
    logits: Tensor,
    rows: Sequence[int],
    requests: Sequence[Request],
    states: Sequence[LogitsState],
    failed: Failures,
) -> None:
    some = [(row, r, s.cursor) for row, r, s in zip(rows, requests, states) if s.cursor is not None]
    if not some:
        return
    masks = np.zeros((len(some), some[0][2].num_words), dtype=np.int32)
    for mask, (row, request, cursor) in zip(masks, some):
        try:
            cursor.advance(request.token_ids, request.prompt_len)
            cursor.fill(mask)
        except GrammarError as e:
            failed.setdefault(row, e)
    allow_bits(logits, [row for row, _, _ in some], masks)

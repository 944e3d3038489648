"""Repetition, presence and frequency penalties, on the tokens that each sequence has and on no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..kernels.choice import penalise_form
from ..sampling import SamplingParams
from ..transfer import send


class TokenCounts:
    """The tokens of one sequence, each once, with how often the output has it. Grows with the sequence.

    Args:
        prompt: Ids of the prompt, where they count; those outside the vocabulary stand for media and do not.
        prompt_len: Where the output begins.
        vocab_size: Of the model.
    """

    def __init__(self, prompt: Sequence[int], prompt_len: int, vocab_size: int) -> None:
        unique = np.unique(np.array(prompt, dtype=np.int64))
        unique = unique[unique < vocab_size]
        self._len, room = len(unique), len(unique) + 64
        self._ids, self._counts = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.float32)
        self._ids[: self._len] = unique
        self._at = dict(zip(unique.tolist(), range(self._len)))
        self._known = prompt_len

    def advance(self, token_ids: Sequence[int]) -> None:
        """Count the tokens that are new."""
        for token in token_ids[self._known :]:
            at = self._at.setdefault(token, self._len)
            if at == self._len:
                if at == len(self._ids):
                    self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
                    self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
                self._ids[at], self._len = token, at + 1
            self._counts[at] += 1
        self._known = len(token_ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """`(tokens,)`."""
        return self._ids[: self._len]

    @property
    def counts(self) -> NDArray[np.float32]:
        """`(tokens,)`: occurrences in the output; 0 for those of the prompt alone."""
        return self._counts[: self._len]


def penalise(
    logits: Tensor, rows: Sequence[int], counts: Sequence[TokenCounts], params: Sequence[SamplingParams]
) -> None:
    """Apply the penalties in place.

    Args:
        logits: `(batch, vocab)` float32.
        rows: The rows that have any; `counts` and `params` are theirs.
    """
    sizes = [len(c.ids) for c in counts]

    def each(values: Sequence[float]) -> Tensor:
        return send(np.repeat(np.array(values, dtype=np.float32), sizes), logits.device)

    penalise_form(logits.device)(
        logits,
        send(np.repeat(np.array(rows, dtype=np.int64), sizes), logits.device),
        send(np.concatenate([c.ids for c in counts]), logits.device),
        send(np.concatenate([c.counts for c in counts]), logits.device),
        each([p.repetition_penalty for p in params]),
        each([p.frequency_penalty for p in params]),
        each([p.presence_penalty for p in params]),
    )

"""Words that are not generated: their token sequences are not completed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sequences_of(words: Iterable[str], tokenizer: Any) -> list[tuple[int, ...]]:
    """The token sequences by which words may come: at the start of a text, after a space, and within a word."""
    found: dict[tuple[int, ...], None] = {}
    before = _ids(tokenizer, "\n")
    for word in words:
        found[tuple(_ids(tokenizer, word))] = None
        found[tuple(_ids(tokenizer, " " + word.lstrip(" ")))] = None
        after = _ids(tokenizer, "\n" + word)  # where a tokenizer puts a space before every text
        if after[: len(before)] == before:
            found[tuple(after[len(before) :])] = None
    return [ids for ids in found if ids]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


class BadWords:
    """Which tokens would complete a bad word.

    Args:
        sequences: Token sequences, none empty.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        unique = sorted({tuple(s) for s in sequences})
        self.always: NDArray[np.int64] = np.array([s[0] for s in unique if len(s) == 1], dtype=np.int64)
        self._after: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        for *before, last in (s for s in unique if len(s) > 1):
            self._after.setdefault(before[-1], []).append((tuple(before), last))

    def banned(self, token_ids: Sequence[int], prompt_len: int) -> NDArray[np.int64]:
        """Tokens that must not come next. Only the output counts: a word that the prompt begins is nobody's fault."""
        if len(token_ids) == prompt_len or token_ids[-1] not in self._after:
            return self.always
        output_len = len(token_ids) - prompt_len
        more = [
            last
            for before, last in self._after[token_ids[-1]]
            if len(before) <= output_len and tuple(token_ids[-len(before) :]) == before
        ]
        return np.concatenate((self.always, np.array(more, dtype=np.int64))) if more else self.always

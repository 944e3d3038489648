"""Where one sequence stands in its grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import GrammarError


class Grammar(NamedTuple):
    """A compiled grammar.

    Attributes:
        matcher: At the grammar's beginning. To be copied, never moved.
        num_tokens: Tokens that it knows of.
    """

    matcher: Any
    num_tokens: int


class GrammarCursor:
    """Follows a sequence's output through a grammar.

    It knows how many tokens it has seen, so that it can be made anew at any time and catch up.

    Args:
        grammar: What it follows.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._matcher = grammar.matcher.deep_copy()
        self._known = 0
        self.num_words = (grammar.num_tokens + 31) // 32

    def advance(self, token_ids: Sequence[int], prompt_len: int) -> None:
        """Go on to the end of a sequence's output.

        Raises:
            GrammarError: The grammar has become too large, or does not allow a token.
        """
        new = list(token_ids[prompt_len + self._known :])
        if new and not self._matcher.consume_tokens(new):
            raise self._error()
        self._known += len(new)

    def fill(self, mask: NDArray[np.int32]) -> None:
        """Write which tokens may come next into `(num_words,)`: bit `i % 32` of word `i // 32` stands for token `i`.

        Raises:
            GrammarError: That took too long, or the grammar has become too large.
        """
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise self._error()

    def _error(self) -> GrammarError:
        reason = (self._matcher.get_error().strip().splitlines() or ["no reason given"])[0]
        return GrammarError(f"the grammar cannot be followed any further: {reason:.300}", code="grammar_error")

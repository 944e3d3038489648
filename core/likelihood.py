"""Log-probabilities of a sequence's tokens, as its reader wants them: some at a time, and none kept that was given away."""

from __future__ import annotations

from collections.abc import Sequence

from .outputs import Logprob
from .request import Request


class Likelihood:
    """Used by one reader, while the engine appends to the request.

    Args:
        request: The sequence.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._dropped, self._summed, self._sum = 0, 0, 0.0

    def between(self, first: int, last: int) -> list[dict[int, Logprob]] | None:
        """Of the tokens from `first` to before `last`; None where some of them are no longer kept."""
        if first < self._dropped:
            return None
        return self._request.logprobs[first - self._dropped : last - self._dropped]

    def sum(self, ids: Sequence[int]) -> float:
        """Of the chosen tokens, `ids`. No call looks at those again which one before has added."""
        found = self.between(self._summed, len(ids)) or []
        for token, candidates in zip(ids[self._summed :], found):
            self._sum += candidates[token].logprob
        self._summed += len(found)
        return self._sum

    def drop(self, count: int) -> None:
        """Keep those of the first `count` tokens no longer: there may be very many, and all at once they take long to free."""
        del self._request.logprobs[: count - self._dropped]
        self._dropped = count


__all__ = ["Likelihood"]

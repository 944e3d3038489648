"""A request of `AsyncLLM` that has several prompts."""

from __future__ import annotations


class Whole:
    """Several prompts that are admitted, or refused, as one request.

    Attributes:
        has_begun: Whether one of them has been sent on its way. Until then the whole waits; from then on its prompts do.
    """

    def __init__(self) -> None:
        self.has_begun = False

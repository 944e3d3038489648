"""What a busy machine spoils once, and not time and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 20


def one_that(is_good: Callable[[T], object], attempt: Callable[[], T]) -> T:
    """What an attempt comes to: the first that is good, or the last of all.

    For what nothing can hold from outside, such as the pieces of a stream: a server that gets no time sends together what it
    would have sent apart.
    """
    found = attempt()
    for _ in range(TRIES - 1):
        if is_good(found):
            break
        found = attempt()
    return found

"""A server for the tests of some files, which is gone afterwards, whatever they did to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .http.conftest import PATIENCE, Served, shared


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """`engine serve` with these arguments, once it is up; told to end at the end, and killed where it does not."""
    served = Served(*arguments)
    try:
        with shared(served):
            yield served
        served.end()
    finally:
        served.process.kill()  # nothing, where it has ended
        served.process.wait(PATIENCE)

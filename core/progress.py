"""Progress bars, on standard error and only where someone is there to see them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Report = Callable[[str, int, int | None], None]
"""(what, how many are done, of how many)."""
_report: Report | None = None


def report_to(report: Report | None) -> None:
    """Tell this function as well of all progress: an engine process's is shown by another process."""
    global _report
    _report = report


def progress(items: Iterable[T], what: str, *, unit: str, quiet: bool = False, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar."""
    if _report is not None:
        for done, item in enumerate(items):
            _report(what, done, total)
            yield item
        _report(what, total or 0, total)
        return
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=what, unit=unit, total=total, leave=False, dynamic_ncols=True)


class ProgressMeter:
    """A bar for an offline batch: prompts done, and output tokens a second."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc="prompts", unit="prompt", leave=False, dynamic_ncols=True)
        self._tokens, self._start = 0, time.monotonic()

    def done(self, tokens: int) -> None:
        """One more prompt is done, with so many tokens."""
        if self._bar is not None:
            self._tokens += tokens
            rate = self._tokens / max(1e-9, time.monotonic() - self._start)
            self._bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

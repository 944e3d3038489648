"""How far the loading of models has come: bars where somebody watches, a line in the log for each part of it otherwise."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class LoadingBars:
    """One bar a model. Engines tell from threads of their own."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._shows = sys.stderr.isatty()

    def of(self, name: str) -> Callable[[str, int, int | None], None]:
        """What a model's engine tells: (what, how many, of how many)."""
        return lambda what, done, total: self._tell(name, what, done, total)

    def _tell(self, name: str, what: str, done: int, total: int | None) -> None:
        with self._lock:
            if not self._shows:
                if (name, what) not in self._said:
                    self._said.add((name, what))
                    logger.info("%s: %s", name, what)
                return
            from tqdm import tqdm

            bar = self._bars.get(name)
            if bar is None:
                bar = self._bars[name] = tqdm(position=len(self._bars), leave=False, dynamic_ncols=True)
            bar.set_description_str(f"{name}: {what}", refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

    def __enter__(self) -> LoadingBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for bar in self._bars.values():
                bar.close()

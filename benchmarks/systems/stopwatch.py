"""What a system's parts take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """Seconds spent in the parts of a system, which are wrapped from outside."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time counts for the part of this name."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.parts[name] += time.perf_counter() - start

        return timed

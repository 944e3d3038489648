"""When requests must have ended."""

from __future__ import annotations

import heapq


class Deadlines:
    """Moments of the monotonic clock, and whose they are. Who has ended before need not be taken out."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def add(self, at: float, key: int) -> None:
        """Somebody's."""
        heapq.heappush(self._heap, (at, key))

    def next(self) -> float:
        """The next one; infinity without any."""
        return self._heap[0][0] if self._heap else float("inf")

    def over(self, now: float) -> list[int]:
        """Whose time is over; each is told once."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[1])
        return found

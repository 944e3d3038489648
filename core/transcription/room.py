"""Memory for decoded clips, which all requests of an engine share: who finds none waits for it, first come, first served.

Takers may live in several event loops, and be cancelled, collected or forgotten by a loop that was closed while they wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import TracebackType

MOST_BYTES = 2 * 2**30
"""Of the clips of all requests, by itself."""


class Share:
    """What one taker has of a room; given back at the end of its `with`."""

    def __init__(self, room: Room, size: int) -> None:
        self._room, self._size = room, size

    def keep(self, size: int) -> None:
        """It has become known how much is needed; the rest is given back."""
        spare, self._size = self._size - size, size
        self._room.give_back(spare)

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep(0)


class _Turn:
    """Of one who waits."""

    def __init__(self, size: int) -> None:
        self.size, self.has_come = size, False
        self.loop = asyncio.get_running_loop()
        self._told = self.loop.create_future()

    async def wait(self) -> None:
        await self._told

    def come(self) -> bool:
        """Tell who waits; False where nobody does any more, because the loop was closed."""
        try:
            self.loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            return False
        self.has_come = True
        return True

    def _tell(self) -> None:
        if not self._told.done():
            self._told.set_result(None)


class Room:
    """Bytes that may be taken.

    Args:
        size: How many; who wants more gets them when nobody else has any.

    Attributes:
        taken: How many are.
    """

    def __init__(self, size: int = MOST_BYTES) -> None:
        self.size, self.taken = size, 0
        self._turns: deque[_Turn] = deque()
        # A taker may be collected, and give back, wherever Python collects: also while this thread has the lock.
        self._lock = threading.RLock()

    async def take(self, size: int) -> Share:
        """Wait for so many bytes."""
        turn = _Turn(size)
        with self._lock:
            self._turns.append(turn)
            self._let_in()
        try:
            await turn.wait()
        except BaseException:
            with self._lock:
                if turn.has_come:
                    self.taken -= size
                elif turn in self._turns:
                    self._turns.remove(turn)
                self._let_in()
            raise
        return Share(self, size)

    def give_back(self, size: int) -> None:
        """See `Share`."""
        with self._lock:
            self.taken -= size
            self._let_in()

    def _let_in(self) -> None:
        while self._turns:
            first = self._turns[0]
            if self.taken and self.taken + first.size > self.size and not first.loop.is_closed():
                return
            self._turns.popleft()
            if first.come():
                self.taken += first.size


__all__ = ["Room", "Share"]

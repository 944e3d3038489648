"""Media that are fetched for clients: so many at a time, each in a thread of its own, while so many others wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ..errors import OverloadedError
from ..media.halt import Halt

AT_A_TIME = 8
"""For all requests together: who sends slow URLs waits for others who do."""
MOST_WAITING = 128
"""When so many wait already, no other request may join them."""


class Fetches:
    """The threads. None of them holds up the server's end, nor lives on for a request that is gone: it is halted.

    Attributes:
        running, waiting: How many there are.
    """

    def __init__(self) -> None:
        self.running = self.waiting = 0
        self._places = asyncio.Semaphore(AT_A_TIME)

    def check_room(self) -> None:
        """Refuse a request before its first one.

        Raises:
            OverloadedError: Too many wait.
        """
        if self.waiting >= MOST_WAITING:
            raise OverloadedError(
                f"{self.waiting} media of other requests wait to be fetched; try again later, or send data: URIs"
            )

    async def run(self, fetch: Callable[[Halt], bytes]) -> bytes:
        """What a fetch brings. Where nobody waits for it any more, it is halted; its place is free when it has ended."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        loop, halt = asyncio.get_running_loop(), Halt()
        brought: asyncio.Future[bytes | BaseException] = loop.create_future()

        def ended(outcome: bytes | BaseException) -> None:
            self.running -= 1
            self._places.release()
            if not brought.done():  # somebody still waits
                brought.set_result(outcome)

        def work() -> None:
            outcome: bytes | BaseException
            try:
                outcome = fetch(halt)
            except BaseException as error:
                outcome = error
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(ended, outcome)

        self.running += 1
        try:
            threading.Thread(target=work, name="media-fetch", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            ended(error)
        try:
            outcome = await brought
        finally:
            halt.set()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

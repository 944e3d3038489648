"""Event streams: what a client gets of a request while it runs, and what becomes of the request when the client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import problem_of
from .json_reply import as_json
from .sending import sent
from .settings import ServerSettings

logger = logging.getLogger(__name__)
Event = Mapping[str, Any] | bytes
"""A mapping; or, of one that is large, its line, `written` in a thread."""
T = TypeVar("T")
FIRST_WAIT = 10.0
"""Seconds that a stream waits for its first event before it begins: what fails until then has a status of its own."""
_DONE = b"data: [DONE]\n\n"


def written(event: Mapping[str, Any], *, named: bool = False) -> bytes:
    """An event's line; `named`: with the name that it has in `type`."""
    name = f"event: {event['type']}\n".encode() if named else b""
    return name + b"data: " + as_json(event) + b"\n\n"


async def and_last(
    events: AsyncGenerator[Event, None], last: Callable[[], Iterator[Event]]
) -> AsyncGenerator[Event, None]:
    """Events, and what stands at their end also where they fail: it comes before the error."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except Exception:
            for event in last():
                yield event
            raise
    for event in last():
        yield event


async def gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What work comes to; cancelled when the client leaves.

    Raises:
        ClientDisconnect: It has left.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancelled(task, leaving)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """Sends events as they come.

    Args:
        events: Each becomes one event of JSON.
        settings: With the times.
        named: Whether events have names, as those of `/v1/responses`.
        done: Whether `[DONE]` ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[Event, None], settings: ServerSettings, *, named: bool = False, done: bool = True
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.settings, self.named, self.done = events, settings, named, done
        self._next: asyncio.Future[Any] | None = None

    async def begin(self, request: Request) -> EventStream:
        """Wait for the first event, so that an early error has a status of its own.

        Raises:
            EngineError: What the first event would have been.
            ClientDisconnect: The client has left.
        """
        first = asyncio.ensure_future(anext(self.events, None))
        leaving = asyncio.ensure_future(gone(request.receive))
        try:
            await asyncio.wait({first, leaving}, timeout=FIRST_WAIT, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not first.done():
                raise ClientDisconnect
            if first.done():
                first.result()
        except BaseException:
            await _cancelled(first)
            await self.events.aclose()
            raise
        finally:
            await _cancelled(leaving)
        self._next = first
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        leaving = asyncio.ensure_future(gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send_all(leaving, scope, send)
        finally:
            await _cancelled(leaving, *([self._next] if self._next is not None else []))
            await self.events.aclose()

    async def _send_all(self, leaving: asyncio.Future[None], scope: Scope, send: Send) -> None:
        while True:
            if self._next is None:
                self._next = asyncio.ensure_future(anext(self.events, None))
            await asyncio.wait(
                {self._next, leaving}, timeout=self.settings.keep_alive, return_when=asyncio.FIRST_COMPLETED
            )
            if leaving.done():
                scope["state"]["outcome"] = "left"
                return
            last = False
            if not self._next.done():
                part = b": still at it\n\n"
            else:
                ready, self._next = self._next, None
                part, last = self._written(ready, scope)
            if not await sent(part, scope, send, last=last, timeout=self.settings.write_timeout) or last:
                return

    def _written(self, ready: asyncio.Future[Event | None], scope: Scope) -> tuple[bytes, bool]:
        """An event as bytes, and whether it is the last."""
        end = _DONE if self.done else b""
        error = ready.exception()
        if error is not None:
            problem = problem_of(error)
            if problem.code == "internal_error":
                logger.error("a stream failed", exc_info=error)
            scope["state"]["outcome"] = problem.code
            event = {**problem.body["error"], "type": "error"} if self.named else problem.body
            return written(event, named=self.named) + end, True
        found = ready.result()
        if found is None:
            return end, True
        return found if isinstance(found, bytes) else written(found, named=self.named), False

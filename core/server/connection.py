"""One connection: what HTTP/1.1 is not told by uvicorn. Who is slow with a request's headers is let go, and who does not read
can be dropped at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import HttpError, problem_of


class Connection(H11Protocol):
    """See `asyncio.Protocol`.

    Attributes:
        idle_timeout: Seconds that a request's headers may take.
    """

    idle_timeout = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = self.app
        self._deadline: float | None = None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})["engine.drop"] = self.transport.abort
            await inner(scope, receive, send)

        self.app = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The headers of the first request are awaited."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """More of a request; what does not complete its headers does not put off their deadline."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            self._await_headers()
        else:
            self._deadline = None

    def _await_headers(self) -> None:
        now = self.loop.time()
        if self._deadline is None:
            self._deadline = now + self.idle_timeout
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(self._deadline, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the form of all errors."""
        body = json.dumps(
            problem_of(HttpError(400, "this is no valid HTTP request", code="invalid_http")).body
        ).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        try:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # in the middle of an answer
            pass
        self.transport.close()

"""What every request passes first and last: its id, bounds of its headers, the drain, metrics, and its line in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DrainingError
from .errors import HttpError, Problem, problem_of
from .metrics import Metrics

logger = logging.getLogger(__name__)
MAX_HEADERS = 100
STILL_OPEN = frozenset({"/health", "/ready", "/metrics"})
"""What is answered while the server drains."""
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Gate:
    """The outermost application.

    Args:
        app: What is behind it.
        metrics: Counts requests.

    Attributes:
        draining: Whether new requests are refused.
        in_flight: Requests that are being answered, but for those that watch the server.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self.draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()

    async def drained(self, timeout: float) -> bool:
        """Refuse new requests and wait for those in flight; whether all of them ended in time."""
        self.draining = True
        self._idle.clear()
        if self.in_flight:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:  # a websocket
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        watching = scope["path"] in STILL_OPEN
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        start, status = time.monotonic(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        self.in_flight += not watching
        try:
            refused = self._refusal(scope, watching)
            if refused is not None:
                state["outcome"] = refused.code
                await refused.response()(scope, receive, send_named)
            else:
                await self.app(scope, receive, send_named)
        except ClientDisconnect:
            state["outcome"], status = "left", 0  # what it was told, if anything, nobody has read
        except asyncio.CancelledError:
            if not self.draining:
                raise
            # The server ends, and cuts off who is not done: nothing that its log should trace.
            state["outcome"] = DrainingError.code
            if not status:
                error = DrainingError("the server has ended before this request was done")
                await problem_of(error).response()(scope, receive, send_named)
        except Exception as error:
            logger.exception("request %s failed", request_id)
            state["outcome"] = "internal_error"
            if not status:
                await problem_of(error).response()(scope, receive, send_named)
        finally:
            self.in_flight -= not watching
            if not self.in_flight:
                self._idle.set()
            self._note(scope, status, time.monotonic() - start)

    def _refusal(self, scope: Scope, watching: bool) -> Problem | None:
        if len(scope["headers"]) > MAX_HEADERS:
            return problem_of(HttpError(431, f"the request has more than {MAX_HEADERS} headers"))
        if self.draining and not watching:
            return problem_of(DrainingError("the server is about to end and takes no more requests"))
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The route as it was declared: a path or a query may hold anything, a key as well.
        route = getattr(scope.get("route"), "path", "(none)")
        status = status or 499
        self.metrics.http(route, scope["method"], status, seconds)
        state = scope["state"]
        facts = {
            "request_id": state["request_id"],
            "method": scope["method"] if len(scope["method"]) < 16 else "?",
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            **{
                name: state[name]
                for name in ("outcome", "model", "prompt_tokens", "completion_tokens")
                if state.get(name)
            },
        }
        level = logging.DEBUG if route in STILL_OPEN or route.startswith("/page/") else logging.INFO
        logger.log(level, "%(method)s %(route)s %(status)s", facts, extra={"facts": facts})


def _request_id(scope: Scope) -> str:
    """The client's own name for its request, where that is a sound one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex

"""Bodies: the type that a route takes, and no more bytes than it may have, before anything is parsed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from ..errors import OverloadedError
from .errors import HttpError
from .settings import ServerSettings

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_MAYBE_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
LINGER_SECONDS = 2.0
BUFFERED_BYTES = 2**30
"""Bodies of all requests in flight together."""


class BodyReader:
    """Reads bodies for a whole server.

    Args:
        settings: With the limits.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.most, self.idle = settings.max_body_bytes, settings.idle_timeout
        self.held = 0

    async def read(self, request: Request) -> bytearray:
        """The whole body.

        Raises:
            HttpError: It is too large, or does not come.
            OverloadedError: Those of other requests take what memory there is for them.
        """
        said = request.headers.get("content-length", "0")
        if said.isdigit() and len(said) < 20 and int(said) > self.most:
            raise await self._too_large(request)
        body = bytearray()
        try:
            while True:
                message = await self._next(request)
                part = message.get("body", b"")
                body += part
                self.held += len(part)
                if len(body) > self.most:
                    raise await self._too_large(request)
                if self.held > BUFFERED_BYTES:
                    raise OverloadedError("the requests that are being received take all the memory there is for them")
                if not message.get("more_body"):
                    return body
        except BaseException:
            self.release(body)
            raise

    def release(self, body: bytearray) -> None:
        """Count a body no longer."""
        self.held -= len(body)

    async def _next(self, request: Request) -> Message:
        try:
            async with asyncio.timeout(self.idle):
                message = await request.receive()
        except TimeoutError:
            raise HttpError(408, f"the rest of the request did not come within {self.idle:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message

    async def _too_large(self, request: Request) -> HttpError:
        """The error, once the rest was thrown away, for a while: many clients read no answer before they have sent all."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LINGER_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while loop.time() < until and (await request.receive()).get("more_body"):
                    await asyncio.sleep(0)
        return HttpError(413, f"the request has more than {self.most} bytes")


def route_for(content_type: str, reader: BodyReader) -> type[APIRoute]:
    """A kind of route whose bodies are of this type."""

    class Route(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def checked(request: Request) -> Response:
                _check_type(request, content_type)
                body = await reader.read(request)
                try:
                    return await handle(_Replayed(request, bytes(body)))
                finally:
                    reader.release(body)

            return checked

    return Route


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given == wanted or (
        wanted == "application/json" and given.startswith("application/") and given.endswith("+json")
    ):
        return
    raise HttpError(415, f"send this with the header Content-Type: {wanted}, not {given[:60] or 'without one'}")


class _Replayed(Request):
    """A request with its body to be read again; after that, it tells when the client leaves."""

    def __init__(self, request: Request, body: bytes) -> None:
        self._whole, self._sent, self._live = body, False, request.receive
        super().__init__(request.scope, self._next)

    async def _next(self) -> Message:
        if self._sent:
            return await self._live()
        self._sent = True
        return {"type": "http.request", "body": self._whole, "more_body": False}

    async def json(self) -> Any:
        """The body as JSON, or an error that says what is wrong with it."""
        try:
            value = json.loads(self._whole)
            if b"\\u" in self._whole and _MAYBE_HALF.search(self._whole):
                json.dumps(value, ensure_ascii=False).encode()
            return value
        except RecursionError:
            raise _no_json("it is nested too deep") from None
        except UnicodeDecodeError:
            raise _no_json("it is not in UTF-8") from None
        except UnicodeEncodeError:
            raise _no_json("it holds half a character, as \\ud83d without its other half") from None
        except json.JSONDecodeError as e:
            raise _no_json(f"{e.msg}, at line {e.lineno}, column {e.colno}") from None
        except ValueError:  # Python reads no number of more than some thousand digits
            raise _no_json("it holds a number of very many digits") from None


def _no_json(why: str) -> HTTPException:
    return HTTPException(400, {"message": f"the body is not JSON: {why}", "code": "invalid_json"})

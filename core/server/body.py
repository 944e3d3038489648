"""Bodies: the type that a route takes, and no more bytes than it may have, before anything is parsed. Large ones are parsed and
checked in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from ..errors import OverloadedError
from .errors import HttpError
from .json_body import parse
from .settings import ServerSettings

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
LINGER_SECONDS = 2.0
SMALL_BYTES = 128 * 1024
"""What is parsed where it stands, since a thread would take longer to begin."""
FORM_BYTES = 256 * 1024
"""Of a form, read before others have their turn."""
BUFFERED_BYTES = 2**30
"""Bodies of all requests in flight together, and what was fetched for them."""


class BodyReader:
    """Reads bodies for a whole server.

    Args:
        settings: With the limits.

    Attributes:
        places: Of the large bodies that are parsed at a time.
        held: Bytes of all bodies, and of what was fetched for them.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.most, self.idle = settings.max_body_bytes, settings.idle_timeout
        self.places, self.held = asyncio.Semaphore(settings.max_uploads), 0

    async def read(self, request: Request, held: Held) -> list[bytes]:
        """The whole body, in the parts in which it came: to join a large one would copy it in the event loop.

        Args:
            request: Whose.
            held: Counts it.

        Raises:
            HttpError: It is too large, or does not come.
            OverloadedError: Those of other requests take what memory there is for them.
        """
        said = request.headers.get("content-length", "0")
        if said.isdigit() and len(said) < 20 and int(said) > self.most:
            raise await self._too_large(request)
        parts: list[bytes] = []
        while True:
            message = await self._next(request)
            part = message.get("body", b"")
            parts.append(part)
            held.add(len(part))
            if held.size > self.most:
                raise await self._too_large(request)
            if not message.get("more_body"):
                return parts

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


class Held:
    """What one request holds of the memory that there is for all. Within it, as a context manager.

    Args:
        reader: Of all.

    Attributes:
        size: Bytes.
    """

    def __init__(self, reader: BodyReader) -> None:
        self.size, self._reader = 0, reader

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.held -= self.size

    def add(self, size: int) -> None:
        """Count so many bytes more.

        Raises:
            OverloadedError: That is more than there is.
        """
        self.size += size
        self._reader.held += size
        if self._reader.held > BUFFERED_BYTES:
            raise OverloadedError("the requests that are being received take all the memory there is for them")


def route_for(content_type: str, reader: BodyReader) -> type[APIRoute]:
    """A kind of route whose bodies are of this type."""

    class Route(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def checked(request: Request) -> Response:
                _check_type(request, content_type)
                with Held(reader) as request.state.held:
                    parts = await reader.read(request, request.state.held)
                    if self.body_field is None:
                        return await handle(_Form(request, parts))
                    size = request.state.held.size
                    if size > SMALL_BYTES:
                        async with reader.places:
                            value = await asyncio.to_thread(_checked, parts, self.body_field)
                    else:
                        value = parse(b"".join(parts)) if size else None
                    return await handle(_Json(request, value, is_empty=not size))

            return checked

    return Route


def _checked(parts: list[bytes], field: Any) -> Any:
    """The request that a body is, of the route's own class: FastAPI takes it as it is. There are no parts afterwards."""
    body = b"".join(parts)
    parts.clear()
    value, errors = field.validate(parse(body), {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors)
    return value


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given == wanted or (
        wanted == "application/json" and given.startswith("application/") and given.endswith("+json")
    ):
        return
    raise HttpError(415, f"send this with the header Content-Type: {wanted}, not {given[:60] or 'without one'}")


class _Json(Request):
    """A request whose body has been read and parsed; what it receives yet is that the client leaves."""

    def __init__(self, request: Request, value: Any, *, is_empty: bool) -> None:
        super().__init__(request.scope, request.receive)
        self._value, self._is_empty = value, is_empty

    async def body(self) -> bytes:
        """Nothing but whether there is one."""
        return b"" if self._is_empty else b"{}"

    async def json(self) -> Any:
        """What it is."""
        return self._value


class _Form(Request):
    """A request with its body to be read again, a piece at a time; after that, it tells when the client leaves."""

    def __init__(self, request: Request, parts: list[bytes]) -> None:
        super().__init__(request.scope, self._next)
        self._live = request.receive
        pieces = (part[i : i + FORM_BYTES] for part in parts for i in range(0, len(part), FORM_BYTES))
        self._pieces = deque(pieces) or deque([b""])

    async def _next(self) -> Message:
        if not self._pieces:
            return await self._live()
        await asyncio.sleep(0)
        piece = self._pieces.popleft()
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

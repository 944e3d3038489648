"""Replies on their way: who does not read is dropped, and a large reply goes a piece at a time."""

from __future__ import annotations

import asyncio
import logging

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)
PIECE_BYTES = 256 * 1024
"""What a connection takes over at once is copied in the event loop."""


async def sent(part: bytes, scope: Scope, send: Send, *, last: bool, timeout: float) -> bool:
    """Send a part of a body; False where the client has not read for so many seconds, and is dropped."""
    try:
        async with asyncio.timeout(timeout):
            await send({"type": "http.response.body", "body": part, "more_body": not last})
    except TimeoutError:
        scope["state"]["outcome"] = "dropped"
        logger.warning("a client did not read its reply for %g s and was dropped", timeout)
        drop = scope.get("extensions", {}).get("engine.drop")
        if drop is not None:
            drop()
        return False
    return True


class LargeReply(Response):
    """JSON of any size.

    Args:
        body: It.
        timeout: Seconds after which a client that does not read is dropped.
    """

    media_type = "application/json"

    def __init__(self, body: bytes, timeout: float) -> None:
        super().__init__(body)
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for first in range(0, len(self.body), PIECE_BYTES):
            last = first + PIECE_BYTES >= len(self.body)
            part = bytes(self.body[first : first + PIECE_BYTES])
            if not await sent(part, scope, send, last=last, timeout=self.timeout):
                return


__all__ = ["LargeReply", "sent"]

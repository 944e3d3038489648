"""Keys. Every route asks for one but those that are named here, and a route that nobody thought of asks as well."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import HttpError, problem_of

PUBLIC = frozenset({"/health"})
"""Paths that load balancers poll, as they stand in the request."""


class Keys:
    """Tells whether a client knows a key; how long that takes tells nothing."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, key: bytes) -> bool:
        """Whether this is one of the keys; all of them are compared, whichever it is."""
        digest = _digest(key)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Auth:
    """Lets through what brings a key.

    Args:
        app: What is behind it.
        keys: Any of them opens; none: everything is open.
        public: Paths that are open to everybody, as they stand in the request.
    """

    def __init__(self, app: ASGIApp, keys: Keys, public: Collection[str] = PUBLIC) -> None:
        self.app, self.keys, self.public = app, keys, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan" or not self.keys or scope["path"] in self.public or self._knows_a_key(scope):
            await self.app(scope, receive, send)
            return
        error = HttpError(401, "this server asks for a key: send the header Authorization: Bearer KEY")
        await problem_of(error).response()(scope, receive, send)

    def _knows_a_key(self, scope: Scope) -> bool:
        given = Headers(scope=scope).getlist("authorization")
        if len(given) != 1:  # with several, somebody on the way may have looked at another one
            return False
        scheme, _, key = given[0].partition(" ")
        return scheme.lower() == "bearer" and self.keys.accept(key.strip().encode("latin-1"))

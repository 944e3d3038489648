"""Where a server is, and what its replies say: events of a stream, and errors in whatever form they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import EngineError, InvalidConfigError

DEFAULT_URL = "http://127.0.0.1:2242"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHOWN = 300


class ReplyError(EngineError):
    """A server refused a request, failed it, or cannot be reached.

    Attributes:
        http_status: Of its reply; None where it failed in mid-stream, or did not answer.
    """

    code = "reply_error"

    def __init__(self, message: str, *, http_status: int | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status


@dataclass(frozen=True)
class Endpoint:
    """A server.

    Attributes:
        base: Its address, without `/v1`.
        api_key: What opens it.
    """

    base: str
    api_key: str | None = None

    @classmethod
    def of(cls, url: str, api_key: str | None = None) -> Endpoint:
        """From what a person types: with or without `http://` and `/v1`.

        Raises:
            InvalidConfigError: It is no address.
        """
        whole = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
        try:
            parts = urlsplit(whole)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise InvalidConfigError(f"--url is an address such as {DEFAULT_URL}, not {url!r:.100}", param="--url")
        return cls(whole, api_key or None)

    def client_options(self) -> dict[str, Any]:
        """For httpx2's clients."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        # What proxy there may be is not for this machine itself.
        near = urlsplit(self.base).hostname in _LOOPBACK
        return {"base_url": self.base, "headers": headers, "trust_env": not near}

    def unreachable(self, error: Exception) -> ReplyError:
        """The error for a server that cannot be talked to."""
        return ReplyError(f"{self.base} does not answer: {error or type(error).__name__}", code="unreachable")


def refusal(status: int, body: bytes) -> ReplyError:
    """The error of a reply that is none of success."""
    try:
        said = json.loads(body)
    except ValueError:
        said = body.decode("utf-8", "replace").strip()
    return _error(said, status)


def event_of(line: str) -> Mapping[str, Any] | None:
    """What a line of an event stream carries; None for a comment, an empty line or the end.

    Raises:
        ReplyError: It carries an error, or no JSON.
    """
    name, _, data = line.partition(":")
    data = data.strip()
    if name != "data" or not data or data == "[DONE]":
        return None
    try:
        found = json.loads(data)
    except ValueError:
        raise ReplyError(f"the server sent an event that is no JSON: {data[:_SHOWN]!r}") from None
    if not isinstance(found, Mapping) or found.get("error"):
        raise _error(found, None)
    return found


def delta_of(event: Mapping[str, Any]) -> str:
    """The text that an event of a chat or of a completion adds."""
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return delta.get("content") or delta.get("reasoning_content") or choices[0].get("text") or ""


def _error(said: Any, status: int | None) -> ReplyError:
    told = said.get("error", said) if isinstance(said, Mapping) else said
    code = None
    if isinstance(told, Mapping):
        code = str(told["code"]) if told.get("code") is not None else None
        told = told.get("message") or told.get("detail") or told
    return ReplyError(str(told)[:_SHOWN] or f"the server answers {status}", http_status=status, code=code)


def missing(error: ImportError) -> InvalidConfigError:
    """The error where a client's own requirements are not installed."""
    return InvalidConfigError(
        f"this command needs {error.name!r}, which is not installed: pip install 'engine-plugin-sdk[server]'",
        param="--url",
    )

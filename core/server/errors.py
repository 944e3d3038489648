"""One table: whatever went wrong → status, type, code and a body in OpenAI's shape.

Bodies are small and the same for everybody: no address of this process, no path of this machine, nothing of a request that is
repeated at length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..errors import EngineError, RequestError

MOST_PROBLEMS, MOST_CHARS, MOST_MESSAGE_CHARS = 10, 200, 1500
RETRY_AFTER = "1"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_PATH = re.compile(r"(?<![\w:/.])/(?!v1/)(?:[\w.@+-]+/)+[\w.@+-]*")
_PREFIXES = ("sampling_params.", "multi_modal_data.")
_CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    431: "headers_too_large",
    503: "unavailable",
}
_TYPES = {
    401: "authentication_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_PARAMS = {"multi_modal_data": "messages", "sampling_params": None, "request_id": None}
"""Arguments of Python's that requests do not have → what stands for them there."""


class HttpError(RequestError):
    """What HTTP itself finds at fault with a request: its body, its headers, its key."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code or _CODES.get(status, "bad_request"), param=param)
        self.http_status = status


class Problem(NamedTuple):
    """What a client is told.

    Attributes:
        status: Of the reply.
        type: The family of the error, as OpenAI's clients know them.
        code: A word for programs.
        message: A sentence for people.
        param: The field at fault, in dotted form.
    """

    status: int
    type: str
    code: str
    message: str
    param: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What tells clients whether to try again."""
        if self.status in (429, 503):
            return {"Retry-After": RETRY_AFTER}
        if self.status == 408 or self.code == "request_too_large":  # the rest of the body may still be on its way
            return {"Connection": "close", "x-should-retry": "false"}
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer", "x-should-retry": "false"}
        # The clients of OpenAI repeat a 500 by themselves; what failed by a plugin's or a model's fault fails again.
        return {} if self.status == 504 else {"x-should-retry": "false"}

    def response(self) -> JSONResponse:
        """As a reply."""
        return JSONResponse(self.body, self.status, self.headers)


def problem_of(error: BaseException) -> Problem:
    """The table."""
    if isinstance(error, HttpError):
        status = error.http_status
        return Problem(status, _type(status), error.code, clean(error.message), error.param)
    if isinstance(error, EngineError):
        return Problem(error.status, error.type, str(error.code), clean(error.message), _param(error.param))
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        status, said = error.status_code, error.detail
        told: Mapping[str, Any] = said if isinstance(said, Mapping) else {"message": str(said)}
        code = told.get("code", _CODES.get(status, "error"))
        return Problem(status, _type(status), code, clean(told["message"]))
    # Whatever it says is for the log.
    return Problem(500, "server_error", "internal_error", "something went wrong in the server; its log has the cause")


def clean(message: str) -> str:
    """A message without addresses and paths, of bounded length."""
    message = message.encode("utf-8", "replace").decode()  # half characters, which no reply can hold
    message = _PATH.sub("…", _ADDRESS.sub("0x…", message))
    return message if len(message) <= MOST_MESSAGE_CHARS else f"{message[:MOST_MESSAGE_CHARS]}…"


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _param(param: str | None) -> str | None:
    if param is None:
        return None
    for prefix in _PREFIXES:
        param = param.removeprefix(prefix)
    return _PARAMS.get(param, param)


def _invalid(errors: Sequence[Any]) -> Problem:
    """What pydantic found, without what it was found in."""
    lines = [f"{_where(e)}: {e['msg']}"[:MOST_CHARS] for e in errors[:MOST_PROBLEMS]]
    if len(errors) > MOST_PROBLEMS:
        lines.append(f"and {len(errors) - MOST_PROBLEMS} more")
    first = errors[0] if errors else {"type": "", "loc": ()}
    kind = str(first["type"])
    code = "missing_parameter" if kind == "missing" else "invalid_type" if kind.endswith("_type") else "invalid_value"
    return Problem(400, "invalid_request_error", code, clean("; ".join(lines)), _where(first)[:MOST_CHARS] or None)


def _where(error: Mapping[str, Any]) -> str:
    """A place in the body, dotted; the names of a union's branches are no places."""
    parts = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    return ".".join(part for part in parts if not _BRANCH.search(part)) or "body"


_BRANCH = re.compile(r"[\[\]()]|^(str|int|float|bool|list|dict|tuple)$|^[A-Z]\w*$|^(function-|constrained-|tagged-)")

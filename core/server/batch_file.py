"""Files of batches, in OpenAI's form: a request a line in, a record a line out. What is wrong with a line is its record."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..errors import InvalidConfigError
from .errors import HttpError, Problem, problem_of

SPEECH = ("/v1/audio/transcriptions", "/v1/audio/translations")
"""Endpoints that take a form, of which a line holds the fields."""
ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/rerank",
    "/classify",
    *SPEECH,
)


@dataclass(frozen=True)
class Line:
    """A line that asks for something.

    Attributes:
        number: Of the line, from 1.
        custom_id: What its record is told by.
        url: The endpoint.
        body: The request.
    """

    number: int
    custom_id: str
    url: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class WrongLine:
    """A line that asks for nothing that could be done."""

    number: int
    custom_id: str | None
    problem: Problem


class Written(NamedTuple):
    """What an earlier run has written: requests by their names, wrong lines by their numbers as well."""

    custom_ids: frozenset[str]
    numbers: frozenset[int]

    def has(self, line: Line | WrongLine) -> bool:
        """Whether a line has its record."""
        return line.number in self.numbers or (isinstance(line, Line) and line.custom_id in self.custom_ids)


NOTHING_WRITTEN = Written(frozenset(), frozenset())


def count_lines(path: Path) -> int:
    """How many lines there are to do.

    Raises:
        InvalidConfigError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return sum(1 for text in file if text.strip())
    except OSError as e:
        raise InvalidConfigError(f"{path} cannot be read: {e.strerror}", param="--input") from e


def read_lines(path: Path) -> Iterator[Line | WrongLine]:
    """The lines of a file, as they are asked for; empty ones are passed over."""
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield _line(number, text, seen)


def _line(number: int, text: bytes, seen: set[str]) -> Line | WrongLine:
    name: str | None = None
    try:
        found = _parsed(text)
        name = found.get("custom_id")
        if not isinstance(name, str) or not name:
            name = None
            raise _wrong("give each request a custom_id of its own, a text", "custom_id")
        if name in seen:
            raise _wrong(f"an earlier line has the custom_id {name[:80]!r}", "custom_id")
        seen.add(name)
        if found.get("method", "POST") != "POST":
            raise _wrong("method is POST", "method")
        url, body = found.get("url"), found.get("body")
        if url not in ENDPOINTS:
            raise _wrong(f"url is one of {', '.join(ENDPOINTS)}", "url")
        if not isinstance(body, dict):
            raise _wrong("body is the request, an object", "body")
        if body.get("stream"):
            raise _wrong("answers of a batch come whole: leave out stream", "body.stream")
    except HttpError as e:
        return WrongLine(number, name, problem_of(e))
    return Line(number, name, url, body)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong("the line is not JSON", None) from None
    if not isinstance(found, dict):
        raise _wrong("the line is no object", None)
    return found


def _wrong(message: str, param: str | None) -> HttpError:
    return HttpError(400, message, code="invalid_batch_line", param=param)


def record_of(line: Line, status: int, request_id: str, body: Any) -> dict[str, Any]:
    """The record of a reply, whether it is an answer or an error."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return {"id": _new_id(), "custom_id": line.custom_id, "response": response, "error": None}


def record_of_wrong(line: WrongLine) -> dict[str, Any]:
    """The record of a line that could not even be asked."""
    error = {**line.problem.body["error"], "line": line.number}
    return {"id": _new_id(), "custom_id": line.custom_id, "response": None, "error": error}


def _new_id() -> str:
    return f"batch_req_{uuid.uuid4().hex}"


class Records:
    """The file of records. Each is in it, whole, as soon as it is written.

    Args:
        path: Of the file.
        resume: Add to what an earlier run has written, in the place of refusing to write over it.

    Attributes:
        written: What the earlier run has written.

    Raises:
        InvalidConfigError: There is one already, it holds something else, or it cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.written = NOTHING_WRITTEN
        try:
            if path.exists() and resume:
                self.written = _cut_to_whole_records(path)
            elif path.exists():
                raise InvalidConfigError(
                    f"{path} is there already: go on with --resume, or give another", param="--output"
                )
            self._file = path.open("ab", buffering=0)
        except OSError as e:
            raise InvalidConfigError(f"{path} cannot be written: {e.strerror}", param="--output") from e

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record."""
        self._file.write(
            json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _cut_to_whole_records(path: Path) -> Written:
    """What stands in a file of records; half a line at its end, where the earlier run was cut off, is taken away."""
    names: set[str] = set()
    numbers: set[int] = set()
    whole = 0
    with path.open("rb+") as file:
        for text in file:
            if not text.endswith(b"\n"):
                break
            try:
                record = json.loads(text)
                error, name = record["error"], record["custom_id"]
            except (ValueError, KeyError, TypeError):
                raise InvalidConfigError(
                    f"{path} holds other things than records of a batch", param="--output"
                ) from None
            whole += len(text)
            if error is not None:
                numbers.add(error["line"])
            elif name is not None:
                names.add(name)
        file.truncate(whole)
    return Written(frozenset(names), frozenset(numbers))

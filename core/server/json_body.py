"""JSON bodies, and what large ones bring: pictures and clips are taken out of them before they are parsed.

A parser reads a string of many MiB in one go, and no other request gets on meanwhile. So long strings are found by looking at one
place in every block of the body, base64 in them is decoded a piece at a time, and the parser sees what is left.
"""

from __future__ import annotations

import binascii
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import HTTPException

from .errors import HttpError

Body = bytes | bytearray
BLOCK = 8 * 1024
"""A string of two blocks holds at least one whole block, in which there is no quote."""
PIECE = 2**20
"""Of base64, decoded at a time: a whole number of its groups of four."""
MAX_REST = 16 * 2**20
"""Bytes of a body that are neither pictures nor clips."""
_DATA_URI = re.compile(rb'[ \t]*data:[^,"\\\x00-\x1f]{0,200};base64,', re.IGNORECASE)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PLACES = {"url": False, "image_url": False, "audio_url": False, "data": True, "image_embeds": True}
"""Where media stand in a part of a message, and whether base64 may stand there without `data:` before it."""


class Media(NamedTuple):
    """What stood in the place of a string.

    Attributes:
        data: The bytes that its base64 stands for.
        is_uri: Whether it was a `data:` URI.
    """

    data: bytes
    is_uri: bool


def parse(body: Body) -> Any:
    """The value of a body. Media of more than ten thousand characters or so, in the parts of messages, are bytes in it.

    Raises:
        HttpError: Without its media, it is too large.
        HTTPException: It is no JSON.
    """
    rest, media = _lifted(body)
    if len(rest) > MAX_REST:
        raise HttpError(413, f"without pictures and clips, the request has more than {MAX_REST >> 20} MiB")
    value = _loads(rest)
    if media and not _put_back(value, media):
        return _loads(body)  # some stand where there are no media: they are text
    return value


def _lifted(body: Body) -> tuple[Body, dict[str, Media]]:
    """The body with marks in the place of long strings of base64, and what the marks stand for."""
    media: dict[str, Media] = {}
    kept: list[bytes | memoryview] = []
    secret, end = secrets.token_hex(16), 0
    with memoryview(body) as view:
        for start, stop in _long_strings(body):
            found = _decoded(view[start:stop])
            if found is not None:
                mark = f"{secret}:{len(media)}"
                media[mark] = found
                kept += view[end:start], mark.encode()
                end = stop
        return (b"".join([*kept, view[end:]]), media) if media else (body, media)


def _long_strings(body: Body) -> Iterator[tuple[int, int]]:
    """Where strings begin and end that have more than a block without a quote. What is no JSON may give anything."""
    at = edge = 0
    while at < len(body):
        if body.find(b'"', at, at + BLOCK) < 0:
            start, edge = body.rfind(b'"', edge, at) + 1, body.find(b'"', at + BLOCK)
            if edge < 0:
                return
            # A quote behind a backslash is within a string, which has begun before.
            if start and body[start - 2 : start - 1] != b"\\":
                yield start, edge
            at = edge
        at = (at // BLOCK + 1) * BLOCK


def _decoded(text: memoryview) -> Media | None:
    """What a string of base64 stands for; None where it is something else."""
    header = _DATA_URI.match(text[:256])
    at = header.end() if header is not None else 0
    pieces = []
    try:
        while at < len(text):
            piece = text[at : at + PIECE]
            at += PIECE
            if at < len(text) and piece[-1] == ord("="):
                return None
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
    except binascii.Error:
        return None
    return Media(b"".join(pieces), header is not None)


def _put_back(value: Any, media: dict[str, Media]) -> bool:
    """Put media where marks stand in the parts of messages; whether that is all of them."""
    left = dict(media)
    for part in _parts(value):
        for held in (part, *(inner for inner in part.values() if isinstance(inner, dict))):
            for place, needs_no_uri in _PLACES.items():
                mark = held.get(place)
                if isinstance(mark, str) and mark in left and (left[mark].is_uri or needs_no_uri):
                    held[place] = left.pop(mark).data
    return not left


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(value, dict):
        return
    for name in ("messages", "input"):
        for message in _dicts(value.get(name)):
            yield from _dicts(message.get("content"))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else iter(())


def _loads(body: Body) -> Any:
    """A body as JSON, or an error that says what is wrong with it."""
    try:
        value = json.loads(body)
        if b"\\u" in body and _HALF.search(body):
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


__all__ = ["parse"]

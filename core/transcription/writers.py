"""Transcriptions as files: plain text, OpenAI's two JSON forms, SubRip and WebVTT subtitles."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ..errors import InvalidRequestError, shown
from .result import Transcription

_GAPS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_MOST_SECONDS = 1e9
"""No clip is longer, and no clock shows more."""


def render(transcription: Transcription, format: str) -> str:
    """A transcription as the text of a file, which ends with a line break.

    Args:
        transcription: What was heard.
        format: One of `FORMATS`.

    Raises:
        InvalidRequestError: There is no such format.
    """
    if not isinstance(format, str) or format not in FORMATS:
        known = ", ".join(FORMATS)
        raise InvalidRequestError(
            f"unknown format {shown(format)}; known: {known}", code="unsupported_parameter", param="format"
        )
    return FORMATS[format].write(transcription)


def _text(transcription: Transcription) -> str:
    return _encodable(transcription.text) + "\n"


def timed_lines(transcription: Transcription) -> str:
    """For people: a line for each segment, or each word where there are times of words, and when it was said."""
    if transcription.words is not None:
        cues = [(w.start, w.end, _encodable(w.word.strip())) for w in transcription.words]
    else:
        cues = list(_cues(transcription))
    return "".join(f"[{_clock(start, '.')} --> {_clock(end, '.')}] {text}\n" for start, end, text in cues)


def _json(transcription: Transcription) -> str:
    return _dump({"text": transcription.text, "usage": _usage(transcription)})


def _verbose_json(transcription: Transcription) -> str:
    return _dump(verbose(transcription))


def verbose(transcription: Transcription) -> dict[str, Any]:
    """OpenAI's `verbose_json`, as values that JSON has."""
    out: dict[str, Any] = {
        "task": transcription.task,
        "language": transcription.language,
        "duration": _finite(transcription.duration),
        "text": transcription.text,
        "segments": [_fields(segment) for segment in transcription.segments],
    }
    if transcription.words is not None:
        out["words"] = [_fields(word) for word in transcription.words]
    return {**out, "usage": _usage(transcription)}


def _usage(transcription: Transcription) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(_finite(transcription.duration))}


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields; numbers that JSON does not have become 0."""
    return {name: _finite(v) if isinstance(v, float) else v for name, v in dataclasses.asdict(value).items()}


def _dump(value: Any) -> str:
    return _encodable(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n"


def _srt(transcription: Transcription) -> str:
    cues = (
        # Some readers take an arrow anywhere for a line of times.
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text.replace('-->', '->')}\n"
        for number, (start, end, text) in enumerate(_cues(transcription), 1)
    )
    return "\n".join(cues)


def _vtt(transcription: Transcription) -> str:
    cues = (
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_escaped(text)}\n" for start, end, text in _cues(transcription)
    )
    return "\n".join(("WEBVTT\n", *cues))


def _cues(transcription: Transcription) -> Iterator[tuple[float, float, str]]:
    """(start, end, one line) of every segment that has a text; a line break within a cue may end it."""
    for segment in transcription.segments:
        line = _encodable(_GAPS.sub(" ", segment.text).strip())
        if line:
            start = min(max(0.0, _finite(segment.start)), _MOST_SECONDS)
            yield start, min(max(start, _finite(segment.end)), _MOST_SECONDS), line


def _clock(seconds: float, point: str) -> str:
    """`HH:MM:SS` and milliseconds, rounded; hours take as many digits as they need."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _encodable(text: str) -> str:
    """Halves of characters, which no file can hold, are replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """One form of file.

    Attributes:
        write: Makes its text.
        suffix: Of its name.
        mime: Its media type.
        timed: Whether it is of little use without time stamps.
    """

    write: Callable[[Transcription], str]
    suffix: str
    mime: str
    timed: bool = False


FORMATS: Final[Mapping[str, FileFormat]] = {
    "text": FileFormat(_text, ".txt", "text/plain; charset=utf-8"),
    "json": FileFormat(_json, ".json", "application/json"),
    "verbose_json": FileFormat(_verbose_json, ".json", "application/json"),
    "srt": FileFormat(_srt, ".srt", "application/x-subrip; charset=utf-8", timed=True),
    "vtt": FileFormat(_vtt, ".vtt", "text/vtt; charset=utf-8", timed=True),
}
"""Name → form of file."""

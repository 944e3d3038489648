"""What a child process that decodes clips does, and how it is asked; `audio_pool` asks.

A request is a line of JSON, and the bytes of the file where it has no path. The answer is lines of JSON: `{"rate": …}`, then
`{"samples": n}` before as many float32, part by part, then `{"done": true}`; or `{"error": …}`, what the caller is to be told.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaDecodeError, MediaError, MediaTooLargeError, MediaUnsupportedError
from .audio_decode import open_decoder
from .audio_limits import CLIP, AudioLimits
from .audio_mix import mixed
from .source import open_path

PART = 1 << 16
"""Samples of an answer's parts, at least; the last may have fewer."""
MOST_IN_PART = 1 << 22
ERRORS: dict[str, type[MediaError]] = {
    kind.__name__: kind for kind in (MediaDecodeError, MediaTooLargeError, MediaUnsupportedError)
}
"""Name → class of the errors that an answer may hold."""


class Decoded(NamedTuple):
    """A file that is being decoded.

    Attributes:
        rate: Of its samples.
        parts: Samples as the model hears them, `(samples,)` float32, in order.
    """

    rate: int
    parts: Iterator[NDArray[np.float32]]


@contextmanager
def decoded(file: BinaryIO, rate: int | None, limits: AudioLimits) -> Iterator[Decoded]:
    """Decode a file in this process.

    Raises:
        MediaError: It is no sound, too long, or of a format that nothing installed reads.
    """
    with open_decoder(file) as source:
        yield Decoded(rate or source.rate, mixed(source.blocks, source.rate, source.channels, rate, limits))


def child(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    _say(answers, {"ready": True})
    for line in requests:
        asked = json.loads(line)
        try:
            with _file(asked, requests) as file, decoded(file, asked["rate"], AudioLimits(**asked["limits"])) as found:
                _say(answers, {"rate": found.rate})
                for part in _joined(found.parts):
                    _say(answers, {"samples": len(part)}, part)
            _say(answers, {"done": True})
        except MediaError as e:
            _say(answers, {"error": type(e).__name__, "message": e.message, "code": e.code, "param": e.param})


def _file(asked: dict[str, Any], requests: BinaryIO) -> BinaryIO:
    if asked["path"] is not None:
        return open_path(Path(asked["path"]), CLIP)
    return io.BytesIO(requests.read(asked["bytes"]))


def _joined(parts: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Small parts put together, so that few lines are written, and large ones cut."""
    waiting: list[NDArray[np.float32]] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= PART:
            yield from _cut(np.concatenate(waiting))
            waiting, count = [], 0
    if count:
        yield from _cut(np.concatenate(waiting))


def _cut(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(samples), MOST_IN_PART):
        yield samples[first : first + MOST_IN_PART]


def _say(answers: BinaryIO, what: dict[str, Any], samples: NDArray[np.float32] | None = None) -> None:
    answers.write(json.dumps(what).encode() + b"\n")
    if samples is not None:
        answers.write(samples.astype("<f4", copy=False).data)
    answers.flush()


__all__ = ["ERRORS", "MOST_IN_PART", "Decoded", "child", "decoded"]

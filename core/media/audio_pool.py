"""Clips are decoded in processes of their own: a decoder that hangs or crashes over a clip ends with its process, and that clip's
request with it; the next clip gets another."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..child_process import ChildError, ChildProcess, Exchange
from ..errors import MediaDecodeError, MediaError, ServerError
from .audio_child import ERRORS, MOST_IN_PART
from .audio_limits import AudioLimits

MAX_CHILDREN = 2
MEMORY_BYTES = 2 * 2**30
"""Address space of a child."""
START_SECONDS = 120.0
"""For a child to start, which is no clip's fault."""
STALL_SECONDS = 20.0
"""Until a child is killed that has given no more samples."""
SECONDS_PER_SECOND = 0.1
"""Of decoding, that a second of the longest clip may take: a hundredth is usual."""


class AudioDecoders:
    """Children that decode clips, started when they are needed and kept for the next clips.

    Args:
        entry: What they do.
        stall: Seconds until one is killed that gives nothing.
        most: Clips that are decoded at once; more wait.
    """

    def __init__(
        self, entry: str = "core.media.audio_child:child", stall: float = STALL_SECONDS, most: int = MAX_CHILDREN
    ) -> None:
        self.entry, self.stall = entry, stall
        self._idle: list[ChildProcess] = []
        self._places = threading.Semaphore(most)
        self._lock = threading.Lock()

    def decode(self, source: Path | bytes, rate: int | None, limits: AudioLimits) -> tuple[NDArray[np.float32], int]:
        """Decode a file.

        Args:
            source: Where it is, or what is in it.
            rate: Samples a second that are wanted; None: its own.
            limits: Of the clip; they hold while decoding, there and here.

        Returns:
            One channel of samples, and how many there are in a second.

        Raises:
            MediaError: It is no sound, too long, or of a format that nothing installed reads; or it made its decoder hang or
                crash (`media_decode_failed`).
        """
        with self._child() as child:
            try:
                seconds = self.stall + limits.seconds * SECONDS_PER_SECOND
                with child.within(seconds, self.stall) as exchange:
                    _ask(child, source, rate, limits)
                    answer = _answer(exchange, limits)
            except ChildError as e:
                why = "takes too long to decode" if e.timed_out else "makes its decoder crash"
                raise MediaDecodeError(f"the clip {why}", code="media_decode_failed", param="audio") from e
        if isinstance(answer, MediaError):
            raise answer
        return answer

    def close(self) -> None:
        """End the children that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    @contextlib.contextmanager
    def _child(self) -> Iterator[ChildProcess]:
        """A child of one's own; it is there for the next clip when it has lived through this one."""
        with self._places:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None or not child.alive:
                child = self._start()
            try:
                yield child
            finally:
                if child.alive:
                    with self._lock:
                        self._idle.append(child)
                else:
                    child.close()

    def _start(self) -> ChildProcess:
        try:
            child = ChildProcess(self.entry, MEMORY_BYTES)
            with child.within(START_SECONDS) as exchange:
                exchange.line()
        except (OSError, ChildError) as e:
            raise ServerError(f"the process that decodes clips cannot be started: {e}") from e
        return child


def _ask(child: ChildProcess, source: Path | bytes, rate: int | None, limits: AudioLimits) -> None:
    path, data = (str(source), b"") if isinstance(source, Path) else (None, source)
    asked = {"path": path, "bytes": len(data), "rate": rate, "limits": dataclasses.asdict(limits)}
    child.requests.write(json.dumps(asked).encode() + b"\n")
    child.requests.write(data)
    child.requests.flush()


def _answer(exchange: Exchange, limits: AudioLimits) -> tuple[NDArray[np.float32], int] | MediaError:
    """What a child says, as little believed as the clip itself: bytes that break the limits or the form end it."""
    parts: list[NDArray[np.float32]] = []
    rate = held = 0
    while True:
        said: dict[str, Any] = json.loads(exchange.line())
        if "error" in said:
            return ERRORS[said["error"]](str(said["message"]), code=said["code"], param=said["param"])
        if "done" in said:
            return (np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)), rate
        rate = int(said.get("rate", rate))
        count = int(said.get("samples", 0))
        held += 4 * count
        if not 0 <= count <= MOST_IN_PART or held > limits.decoded_bytes:
            raise ValueError("more than was to be given")
        if count:
            parts.append(np.frombuffer(exchange.exactly(4 * count), dtype="<f4"))


@functools.cache
def decoders() -> AudioDecoders:
    """Those of this process."""
    made = AudioDecoders()
    atexit.register(made.close)
    return made


__all__ = ["AudioDecoders", "decoders"]

"""The clips of one request: one or several, opened in groups that fit into memory, and what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import EngineError, InvalidRequestError, RequestError
from ..job_runner import OnError
from ..media.audio import AudioClip, load_audio
from ..media.audio_limits import AudioLimits
from ..media.door import fetch_media
from ..media.fetch import MediaFetcher
from ..media.source import is_remote
from .result import Transcription


def as_clips(audio: Any) -> tuple[list[Any], bool]:
    """One clip or several, and whether it was one. A tuple is `(wave, rate)`; a list holds clips."""
    if isinstance(audio, list):
        return audio, False
    if isinstance(audio, Mapping):
        raise InvalidRequestError("a clip is bytes, a path, a data: URI or (wave, rate), not a mapping", param="audio")
    return [audio], True


class Clips:
    """Clips that a caller gave.

    Args:
        values: As `LLM.transcribe` takes them.
        rate: To bring them to.
        limits: Of each.
        fetcher: Gets those that are URLs of hosts that are allowed.
    """

    def __init__(self, values: Sequence[Any], rate: int, limits: AudioLimits, fetcher: MediaFetcher) -> None:
        self.values, self.rate, self.limits, self.fetcher = values, rate, limits, fetcher
        self._next = 0

    @property
    def left(self) -> int:
        """How many no group has had yet."""
        return len(self.values) - self._next

    @property
    def clip_bytes(self) -> int:
        """Most memory for the samples of one."""
        return self.limits.most_bytes(self.rate)

    @property
    def group_bytes(self) -> int:
        """Most memory for the samples of the next group."""
        return min(self.left * self.clip_bytes, self.limits.decoded_bytes + self.clip_bytes)

    def open(self, index: int) -> AudioClip:
        """One of them.

        Raises:
            MediaError: It cannot be used.
        """
        value = self.values[index]
        if self.fetcher and isinstance(value, str) and is_remote(value):
            value = fetch_media(self.fetcher, "audio", value, self.limits)
        return load_audio(value, sample_rate=self.rate, limits=self.limits)

    def open_group(self, results: Results) -> dict[int, AudioClip]:
        """The next of them, by their places, until they take as much memory as one clip may; failures go to the results."""
        group: dict[int, AudioClip] = {}
        held = 0
        while self.left and held <= self.limits.decoded_bytes:
            index, self._next = self._next, self._next + 1
            try:
                group[index] = self.open(index)
            except EngineError as e:
                results.fail(index, e)
            else:
                held += group[index].wave.nbytes
        return group


class Results:
    """What has become of clips so far.

    Args:
        task: That was asked for.
        on_error: `raise` a failure, or `return` it in the clip's place.
        count: How many clips there are.
    """

    def __init__(self, task: str, on_error: OnError, count: int) -> None:
        self.task, self.on_error, self.count = task, on_error, count
        self._made: dict[int, Transcription] = {}

    def put(self, index: int, made: Transcription) -> None:
        """A clip is done."""
        self._made[index] = made

    def fail(self, index: int, error: EngineError) -> Transcription:
        """A clip cannot be done; what stands in its place.

        Raises:
            EngineError: This one, with what was done in its `partial_results`, unless failures are returned. Of several
                clips, the message says which it is.
        """
        if self.on_error == "raise":
            if self.count > 1 and isinstance(error, RequestError):  # others may be an engine's, shared by all
                error.message = f"clip {index}: {error.message}"
                error.args = (error.message,)
            error.partial_results = self.in_order()
            raise error
        self._made[index] = Transcription("", task=self.task, error=error)
        return self._made[index]

    def in_order(self) -> list[Transcription]:
        """All there are, in the order of the clips."""
        return [self._made[index] for index in sorted(self._made)]


__all__ = ["Clips", "Results", "as_clips"]

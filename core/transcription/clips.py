"""The clips of one request: one or several, opened in groups that fit into memory, and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import EngineError, InvalidRequestError
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

    def open(self, index: int) -> AudioClip:
        """One of them.

        Raises:
            MediaError: It cannot be used; of several, the message says which.
        """
        try:
            value = self.values[index]
            if self.fetcher and isinstance(value, str) and is_remote(value):
                value = fetch_media(self.fetcher, "audio", value, self.limits)
            return load_audio(value, sample_rate=self.rate, limits=self.limits)
        except EngineError as e:
            if len(self.values) > 1:
                e.message = f"clip {index}: {e.message}"
                e.args = (e.message,)
            raise

    def in_groups(self, results: Results) -> Iterator[dict[int, AudioClip]]:
        """Opened, by their places, in groups that are as large as one clip may be; failures go to the results."""
        group: dict[int, AudioClip] = {}
        held = 0
        for index in range(len(self.values)):
            try:
                clip = self.open(index)
            except EngineError as e:
                results.fail(index, e)
                continue
            if group and held + clip.wave.nbytes > self.limits.decoded_bytes:
                yield group
                group, held = {}, 0
            group[index] = clip
            held += clip.wave.nbytes
        yield group


class Results:
    """What has become of clips so far.

    Args:
        task: That was asked for.
        on_error: `raise` a failure, or `return` it in the clip's place.
    """

    def __init__(self, task: str, on_error: OnError) -> None:
        self.task, self.on_error = task, on_error
        self._made: dict[int, Transcription] = {}

    def put(self, index: int, made: Transcription) -> None:
        """A clip is done."""
        self._made[index] = made

    def fail(self, index: int, error: EngineError) -> None:
        """A clip cannot be done.

        Raises:
            EngineError: This one, with what was done in its `partial_results`, unless failures are returned.
        """
        if self.on_error == "raise":
            error.partial_results = self.in_order()
            raise error
        self._made[index] = Transcription("", task=self.task, error=error)

    def in_order(self) -> list[Transcription]:
        """All there are, in the order of the clips."""
        return [self._made[index] for index in sorted(self._made)]


__all__ = ["Clips", "Results", "as_clips"]

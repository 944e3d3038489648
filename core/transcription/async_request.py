"""One call of `AsyncLLM.transcribe`: its deadline, and its place among the requests of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import RequestTimeoutError
from ..job_runner import OnError
from ..media.audio_limits import AudioLimits
from ..stream import checked_timeout
from .async_transcriber import AsyncTranscriber, Complete, InThread
from .clips import as_clips
from .piece import Wish
from .result import Transcription, TranscriptionDelta
from .room import Room
from .speech import Speech
from .wishes import checked_wish

if TYPE_CHECKING:
    from ..served import ServedEngine


class AsyncRequest:
    """What a caller asks for. Nothing happens before it is awaited or read.

    Args:
        engine: With the model.
        audio: One clip or a list.
        wishes: What `checked_wish` takes.
        timeout: Seconds until it ends; None: as many as it takes.
        complete: Completes one prompt.
        in_thread: Calls a function in a worker thread.
        room: For the clips of all requests.
    """

    def __init__(
        self,
        engine: ServedEngine,
        audio: Any,
        wishes: Mapping[str, Any],
        timeout: float | None,
        complete: Complete,
        in_thread: InThread,
        room: Room,
    ) -> None:
        self.timeout = checked_timeout(timeout)
        self.clips, self._single = as_clips(audio)
        self.engine, self.wishes = engine, wishes
        self.complete, self.in_thread, self.room = complete, in_thread, room
        self._deadline: float | None = None

    async def transcriptions(
        self, place: AbstractContextManager[None], on_error: OnError
    ) -> Transcription | list[Transcription]:
        """All clips; `place` is held meanwhile."""
        with place:
            self._begin()
            async with self._in_time():
                transcriber, wish = await self._prepare()
                made = await transcriber.transcribe(self.clips, wish, on_error)
        return made[0] if self._single else made

    async def deltas(
        self, place: AbstractContextManager[None], on_error: OnError
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """Clips one after another, each as its text comes; `place` is held meanwhile."""
        with place:
            self._begin()
            async with self._in_time():
                transcriber, wish = await self._prepare()
            async with aclosing(transcriber.stream(self.clips, wish, on_error)) as deltas:
                while True:
                    async with self._in_time():  # not around the yield: the reader's own time is not cancelled
                        delta = await anext(deltas, None)
                    if delta is None:
                        return
                    yield delta

    async def _prepare(self) -> tuple[AsyncTranscriber, Wish]:
        def check() -> tuple[Speech, Wish]:
            speech = Speech(self.engine)
            return speech, checked_wish(speech, **self.wishes)

        speech, wish = await self.in_thread(check)
        config = self.engine.config
        limits = AudioLimits(seconds=config.max_audio_seconds)
        return AsyncTranscriber(speech, self.complete, self.in_thread, limits, self.room, config.max_num_seqs), wish

    def _begin(self) -> None:
        self._deadline = None if self.timeout is None else asyncio.get_running_loop().time() + self.timeout

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise RequestTimeoutError(f"the request's {self.timeout:g} s were over", param="timeout") from None
            raise


__all__ = ["AsyncRequest"]

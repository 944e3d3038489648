"""Transcribes clips inside an event loop, beside whatever else the engine does: each piece of a clip is a prompt of its own.

Clips are opened, cut and read in worker threads; only what is ready to be shown passes through the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sdk.speech import SpeechToTextConfig

from ..errors import EngineError
from ..job_runner import OnError
from ..media.audio import Wave
from ..media.audio_limits import AudioLimits
from ..outputs import CompletionOutput, RequestOutput, RequestOutputKind
from ..sampling import SamplingParams
from .clip import ClipTask, advance
from .clips import Clips, Results
from .piece import Call, Wish
from .result import Transcription, TranscriptionDelta
from .room import Room, Share
from .shown import Shown
from .speech import Speech

T = TypeVar("T")
Complete = Callable[[Any, SamplingParams], AsyncGenerator[RequestOutput, None]]
"""Completes one prompt; to close it early aborts it."""


class InThread(Protocol):
    """Calls a function in a worker thread."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> Awaitable[T]: ...


class AsyncTranscriber:
    """Transcribes what one caller asks of one model.

    Args:
        speech: The model's hooks.
        complete: Completes one prompt.
        in_thread: Where clips are opened and texts read.
        limits: Of each clip.
        room: For the clips of all callers.
        most: So many pieces are under way at once; more would only wait within the engine.
    """

    def __init__(
        self, speech: Speech, complete: Complete, in_thread: InThread, limits: AudioLimits, room: Room, most: int
    ) -> None:
        self.speech, self.complete, self.in_thread, self.limits = speech, complete, in_thread, limits
        self.room, self._places = room, asyncio.Semaphore(most)

    async def transcribe(self, values: Sequence[Any], wish: Wish, on_error: OnError) -> list[Transcription]:
        """All clips, in order. As many as memory allows are opened and run together."""
        config, results = self.speech.config(wish.task), Results(wish.task, on_error, len(values))
        clips = self._clips(values, config)
        while clips.left:
            with await self.room.take(clips.group_bytes) as share:
                await self._group(clips, share, results, config, wish)
        return results.in_order()

    async def stream(
        self, values: Sequence[Any], wish: Wish, on_error: OnError
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """Clips one after another, each as its text comes."""
        config, results = self.speech.config(wish.task), Results(wish.task, on_error, len(values))
        clips = self._clips(values, config)
        for index in range(len(values)):
            try:
                with await self.room.take(clips.clip_bytes) as share:
                    async with aclosing(self._stream_clip(clips, share, index, config, wish)) as deltas:
                        async for delta in deltas:
                            yield delta
                            if delta.done is not None:
                                results.put(index, delta.done)
            except EngineError as e:
                yield TranscriptionDelta(index, "", results.fail(index, e))

    def _clips(self, values: Sequence[Any], config: SpeechToTextConfig) -> Clips:
        return Clips(values, config.sample_rate, self.limits, self.speech.engine.inputs.fetcher)

    async def _group(
        self, clips: Clips, share: Share, results: Results, config: SpeechToTextConfig, wish: Wish
    ) -> None:
        """Open as many clips as memory allows, and transcribe them together."""
        opened = await self.in_thread(clips.open_group, results)
        share.keep(sum(clip.wave.nbytes for clip in opened.values()))
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, clip in opened.items():
                    tasks.create_task(self._into(results, index, config, clip.wave, wish))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _into(self, results: Results, index: int, config: SpeechToTextConfig, wave: Wave, wish: Wish) -> None:
        """Transcribe a clip that is open."""
        try:
            steps = (await self.in_thread(ClipTask, self.speech, config, wave, wish)).steps()
            made: list[CompletionOutput] | None = None
            while not isinstance(calls := await self.in_thread(advance, steps, made), Transcription):
                ends: dict[int, CompletionOutput] = {}
                async with aclosing(self._outputs(calls, RequestOutputKind.FINAL_ONLY)) as outputs:
                    async for place, output in outputs:
                        ends[place] = output.outputs[0]
                made = [ends[place] for place in range(len(calls))]
            results.put(index, calls)
        except EngineError as e:
            results.fail(index, e)

    async def _stream_clip(
        self, clips: Clips, share: Share, index: int, config: SpeechToTextConfig, wish: Wish
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        wave = (await self.in_thread(clips.open, index)).wave
        share.keep(wave.nbytes)
        clip: ClipTask = await self.in_thread(ClipTask, self.speech, config, wave, wish)
        steps, shown = clip.steps(), Shown(clip)
        made: list[CompletionOutput] | None = None
        while not isinstance(calls := await self.in_thread(advance, steps, made), Transcription):
            so_far = [""] * len(calls)
            ends: dict[int, CompletionOutput] = {}
            async with aclosing(self._outputs(calls, RequestOutputKind.CUMULATIVE)) as outputs:
                async for place, output in outputs:
                    call, completion = calls[place], output.outputs[0]
                    if output.finished:
                        ends[place] = completion
                    if call.piece is None:
                        continue
                    new, so_far[place] = completion.text[len(so_far[place]) :], completion.text
                    if text := shown.add(call.piece, new, ends.get(place), call.temperature):
                        yield TranscriptionDelta(index, text)
            made = [ends[place] for place in range(len(calls))]
        yield TranscriptionDelta(index, shown.rest(calls), calls)

    async def _outputs(
        self, calls: Sequence[Call], kind: RequestOutputKind
    ) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Run calls side by side; yields their outputs as they come, each with the place of its call."""
        news: asyncio.Queue[tuple[int, RequestOutput | Exception]] = asyncio.Queue(maxsize=1)

        async def run(place: int, call: Call) -> None:
            try:
                params = replace(call.params, output_kind=kind)
                async with self._places, aclosing(self.complete(call.prompt, params)) as outputs:
                    async for output in outputs:
                        await news.put((place, output))
            except Exception as e:
                await news.put((place, e))

        tasks = [asyncio.create_task(run(place, call)) for place, call in enumerate(calls)]
        left = len(tasks)
        try:
            while left:
                place, output = await news.get()
                if isinstance(output, Exception):
                    raise output
                left -= output.finished
                yield place, output
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["AsyncTranscriber", "Complete", "InThread"]

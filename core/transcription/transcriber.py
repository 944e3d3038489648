"""Transcribes clips by stepping the engine: all their pieces as one batch, or streamed in turn. See `AsyncTranscriber` for the
same inside an event loop."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from sdk.speech import SpeechToTextConfig

from ..errors import EngineError
from ..job_runner import JobRunner, OnError
from ..jobs import Job
from ..media.audio_limits import AudioLimits
from ..outputs import CompletionOutput, RequestOutput, RequestOutputKind
from .clip import ClipTask, Steps, advance
from .clips import Clips, Results
from .piece import Call, Wish
from .result import Transcription, TranscriptionDelta
from .shown import Shown
from .speech import Speech


class Transcriber:
    """Transcribes with one model.

    Args:
        speech: The model's hooks.
        runner: Runs its jobs.
        limits: Of each clip.
    """

    def __init__(self, speech: Speech, runner: JobRunner, limits: AudioLimits) -> None:
        self.speech, self.runner, self.limits = speech, runner, limits

    def transcribe(
        self, values: Sequence[Any], wish: Wish, on_error: OnError, *, show_progress: bool
    ) -> list[Transcription]:
        """All clips, in order. As many as memory allows are opened and run together."""
        config, results = self.speech.config(wish.task), Results(wish.task, on_error, len(values))
        waiting: dict[int, tuple[Steps, list[Call]]] = {}

        def go_on(index: int, steps: Steps, made: list[CompletionOutput] | None) -> None:
            try:
                next_round = advance(steps, made)
            except EngineError as e:
                results.fail(index, e)
                return
            if isinstance(next_round, Transcription):
                results.put(index, next_round)
            else:
                waiting[index] = steps, next_round

        clips = self._clips(values, config)
        while clips.left:
            for index, clip in clips.open_group(results).items():
                go_on(index, ClipTask(self.speech, config, clip.wave, wish).steps(), None)
            while waiting:
                rounds = dict(waiting)
                waiting.clear()
                made = iter(self._complete([call for _, calls in rounds.values() for call in calls], show_progress))
                for index, (steps, calls) in rounds.items():
                    outputs = [next(made) for _ in calls]
                    error = next((output.error for output in outputs if output.error is not None), None)
                    if error is not None:
                        results.fail(index, error)
                    else:
                        go_on(index, steps, [output.outputs[0] for output in outputs])
        return results.in_order()

    def stream(self, values: Sequence[Any], wish: Wish, on_error: OnError) -> Iterator[TranscriptionDelta]:
        """Clips one after another, each as its text comes."""
        config, results = self.speech.config(wish.task), Results(wish.task, on_error, len(values))
        clips = self._clips(values, config)
        for index in range(len(values)):
            try:
                done = yield from self._stream_clip(index, ClipTask(self.speech, config, clips.open(index).wave, wish))
            except EngineError as e:
                yield TranscriptionDelta(index, "", results.fail(index, e))
            else:
                results.put(index, done)

    def _clips(self, values: Sequence[Any], config: SpeechToTextConfig) -> Clips:
        return Clips(values, config.sample_rate, self.limits, self.speech.engine.inputs.fetcher)

    def _stream_clip(self, index: int, clip: ClipTask) -> Generator[TranscriptionDelta, None, Transcription]:
        """A clip's deltas; returns the whole."""
        steps, shown = clip.steps(), Shown(clip)
        made: list[CompletionOutput] | None = None
        while not isinstance(next_round := advance(steps, made), Transcription):
            made = []
            for text in self._stream_round(next_round, shown, made):
                if text:
                    yield TranscriptionDelta(index, text)
        yield TranscriptionDelta(index, shown.rest(next_round), next_round)
        return next_round

    def _stream_round(self, calls: list[Call], shown: Shown, made: list[CompletionOutput]) -> Iterator[str]:
        """Run calls, put their completions into `made`, and yield what there is to show meanwhile."""
        jobs = self._jobs(calls, "raise")
        places = {id(job): call for job, call in zip(jobs, calls)}
        for job in self.runner.run(jobs, "raise", stream=True):
            call, new = places[id(job)], job.take(RequestOutputKind.DELTA)
            if call.piece is not None and new is not None and new.outputs:
                ended = job.output.outputs[0] if job.output.finished else None
                yield shown.add(call.piece, new.outputs[0].text, ended, call.temperature)
        made += [job.output.outputs[0] for job in jobs]

    def _complete(self, calls: Sequence[Call], show_progress: bool) -> list[RequestOutput]:
        return self.runner.finish(self._jobs(calls, "return"), "return", show_progress=show_progress)

    def _jobs(self, calls: Sequence[Call], on_error: OnError) -> list[Job]:
        inputs = [functools.partial(self.runner.engine.inputs.process, call.prompt) for call in calls]
        return self.runner.make(inputs, [call.params for call in calls], on_error)


__all__ = ["Transcriber"]

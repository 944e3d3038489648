"""Transcribes clips with an `LLM`: opens and checks them, runs all their pieces as one batch, or streams them in turn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from sdk.speech import SpeechToTextConfig, Task, Timestamps

from ..errors import EngineError, InvalidRequestError, shown
from ..media.audio import AudioClip, load_audio
from ..media.audio_limits import AudioLimits
from ..outputs import CompletionOutput, RequestOutput, RequestOutputKind
from .clip import ClipTask
from .joiner import TextJoiner
from .piece import Call, Wish
from .result import Transcription, TranscriptionDelta
from .speech import Speech

if TYPE_CHECKING:
    from ..llm import LLM, OnError

Steps = Generator[list[Call], list[CompletionOutput], Transcription]


class Transcriber:
    """Transcribes with one model.

    Args:
        llm: With the model.

    Raises:
        InvalidRequestError: The model does not transcribe.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm, self.speech = llm, Speech(llm.engine)
        self.limits = AudioLimits(seconds=llm.engine.config.max_audio_seconds)

    def wish(
        self,
        *,
        language: str | None,
        to_language: str | None,
        task: Task,
        prompt: str | None,
        temperature: float,
        timestamps: Timestamps | None,
    ) -> Wish:
        """What is wanted, checked.

        Raises:
            InvalidRequestError: The task, the language, the time stamps or the prompt are none of this model's.
        """
        if task not in get_args(Task):
            raise InvalidRequestError(
                f"task is 'transcribe' or 'translate', not {shown(task)}", code="unsupported_task", param="task"
            )
        if to_language is not None and task != "translate":
            raise InvalidRequestError("to_language is for task='translate'", param="to_language")
        self._check_timestamps(timestamps)
        if language is not None:
            language = self.speech.validate_language(language)
        if to_language is not None:
            to_language = self.speech.validate_language(to_language, "to_language")
        return Wish(task, language, to_language, self._checked_prompt(prompt), temperature, timestamps)

    def transcribe(
        self, clips: Sequence[Any], wish: Wish, on_error: OnError, use_progress: bool
    ) -> list[Transcription]:
        """All clips, in order. As many as memory allows are opened and run together."""
        results: dict[int, Transcription] = {}
        config = self.speech.config(wish.task)

        def fail(index: int, error: EngineError) -> None:
            if on_error == "raise":
                error.partial_results = [results[i] for i in sorted(results)]
                raise error
            results[index] = Transcription("", task=wish.task, error=error)

        def go_on(index: int, steps: Steps, made: list[CompletionOutput] | None) -> None:
            try:
                waiting[index] = steps, steps.send(made)  # type: ignore[arg-type]  # None starts it
            except StopIteration as done:
                results[index] = done.value
            except EngineError as e:
                fail(index, e)

        waiting: dict[int, tuple[Steps, list[Call]]] = {}
        for opened in self._in_groups(clips, config, fail):
            for index, clip in opened.items():
                go_on(index, ClipTask(self.speech, config, clip.wave, wish).steps(), None)
            while waiting:
                rounds = dict(waiting)
                waiting.clear()
                made = iter(self._complete([call for _, calls in rounds.values() for call in calls], use_progress))
                for index, (steps, calls) in rounds.items():
                    outputs = [next(made) for _ in calls]
                    error = next((output.error for output in outputs if output.error is not None), None)
                    if error is not None:
                        fail(index, error)
                    else:
                        go_on(index, steps, [output.outputs[0] for output in outputs])
        return [results[i] for i in range(len(clips))]

    def stream(self, clips: Sequence[Any], wish: Wish) -> Iterator[TranscriptionDelta]:
        """Clips one after another, each as its text comes."""
        config = self.speech.config(wish.task)
        for index, value in enumerate(clips):
            clip = self._open(value, config, index if len(clips) > 1 else None)
            yield from self._stream_clip(index, ClipTask(self.speech, config, clip.wave, wish))

    def _stream_clip(self, index: int, clip: ClipTask) -> Iterator[TranscriptionDelta]:
        steps, shown_so_far = clip.steps(), _Shown(clip)
        made: list[CompletionOutput] | None = None
        while True:
            try:
                calls = steps.send(made)  # type: ignore[arg-type]  # None starts it
            except StopIteration as done:
                whole: Transcription = done.value
                yield TranscriptionDelta(index, shown_so_far.rest(whole), whole)
                return
            made = []
            for text in self._stream_round(calls, shown_so_far, made):
                if text:
                    yield TranscriptionDelta(index, text)

    def _stream_round(self, calls: list[Call], shown_so_far: _Shown, made: list[CompletionOutput]) -> Iterator[str]:
        """Run calls, put their completions into `made`, and yield what there is to show meanwhile."""
        llm = self.llm
        inputs = [(lambda c=call: llm.engine.inputs.process(c.prompt)) for call in calls]
        jobs = llm._make_jobs(inputs, [call.params for call in calls], "raise")
        places = {id(job): call for job, call in zip(jobs, calls)}
        for job in llm._run(jobs, "raise", stream=True):
            call, new = places[id(job)], job.take(RequestOutputKind.DELTA)
            if call.piece is not None and new is not None and new.outputs:
                ended = job.output.outputs[0] if job.output.finished else None
                yield shown_so_far.add(call.piece, new.outputs[0].text, ended, call.temperature)
        made += [job.output.outputs[0] for job in jobs]

    # ---- the parts --------------------------------------------------------------------------------------------------

    def _in_groups(
        self, clips: Sequence[Any], config: SpeechToTextConfig, fail: Callable[[int, EngineError], None]
    ) -> Iterator[dict[int, AudioClip]]:
        """Clips opened, by their places, in groups that are as large as one clip may be."""
        group: dict[int, AudioClip] = {}
        held = 0
        for index, value in enumerate(clips):
            try:
                clip = self._open(value, config, index if len(clips) > 1 else None)
            except EngineError as e:
                fail(index, e)
                continue
            if group and held + clip.wave.nbytes > self.limits.decoded_bytes:
                yield group
                group, held = {}, 0
            group[index] = clip
            held += clip.wave.nbytes
        yield group

    def _open(self, value: Any, config: SpeechToTextConfig, index: int | None) -> AudioClip:
        try:
            return load_audio(value, sample_rate=config.sample_rate, limits=self.limits)
        except EngineError as e:
            if index is not None:
                e.message = f"clip {index}: {e.message}"
                e.args = (e.message,)
            raise

    def _complete(self, calls: Sequence[Call], use_progress: bool) -> list[RequestOutput]:
        if not calls:
            return []
        prompts, params = [call.prompt for call in calls], [call.params for call in calls]
        made: list[RequestOutput] = self.llm.generate(prompts, params, on_error="return", use_progress=use_progress)
        return made

    def _check_timestamps(self, timestamps: Any) -> None:
        if timestamps is None:
            return
        hooks = self.speech.hooks
        known = {"segment": hooks.supports_segment_timestamp, "word": hooks.supports_word_timestamp}
        if not isinstance(timestamps, str) or timestamps not in known:
            raise InvalidRequestError(
                f"timestamps is 'segment', 'word' or None, not {shown(timestamps)}", param="timestamps"
            )
        if not known[timestamps]:
            given = ", ".join(name for name, there in known.items() if there) or "none"
            raise InvalidRequestError(
                f"{self.llm.plan.architecture} gives no time stamps of {timestamps}s; it gives: {given}",
                code="unsupported_parameter",
                param="timestamps",
            )

    def _checked_prompt(self, prompt: Any) -> str:
        """The text that comes before; it becomes part of the model's own prompt, so it may hold no control token."""
        if prompt is None:
            return ""
        text = self.llm.engine.inputs.check_text(prompt)
        reserved = next((t for t in self.llm.engine.inputs.chat.added_tokens if t.strip() and t in text), None)
        if reserved is not None:
            raise InvalidRequestError(
                f"the prompt holds {reserved!r}, which is a token of the model's own; leave it out",
                code="reserved_token",
                param="prompt",
            )
        return text


class _Shown:
    """What of a clip's text has been shown: pieces in order, each when it is certain to stay."""

    def __init__(self, clip: ClipTask) -> None:
        self.clip, self.joiner = clip, TextJoiner()
        self._at = 0
        self._waiting: dict[int, str] = {}
        self._ended: set[int] = set()

    def add(self, piece: int, text: str, ended: CompletionOutput | None, temperature: float) -> str:
        """More of a piece's text; returns what can be shown now."""
        if self.clip.shows_tokens:
            self._waiting[piece] = self._waiting.get(piece, "") + text
        if ended is not None and self.clip.settle(piece, ended, temperature):
            self._ended.add(piece)
            if not self.clip.shows_tokens:
                self._waiting[piece] = self.clip.visible_text(piece)
        out = ""
        while True:
            out += self.joiner.add(self._waiting.pop(self._at, ""))
            if self._at not in self._ended:
                return out
            self._at += 1
            self.joiner.next_piece()

    def rest(self, whole: Transcription) -> str:
        """What has not been shown of the whole."""
        return whole.text.removeprefix(self.joiner.text)


def as_clips(audio: Any) -> tuple[list[Any], bool]:
    """One clip or several, and whether it was one. A tuple is `(wave, rate)`; a list holds clips."""
    if isinstance(audio, list):
        return audio, False
    if isinstance(audio, Mapping):
        raise InvalidRequestError("a clip is bytes, a path, a data: URI or (wave, rate), not a mapping", param="audio")
    return [audio], True

"""One clip on its way to a transcription: what to ask of the model next, and what to make of the answers.

Nothing here runs a model. `ClipTask.steps` yields rounds of calls and is sent the completions, so that whoever drives it may
put the calls of many clips into one batch, stream them, or await them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

from sdk.speech import SpeechSegment, SpeechToTextConfig, SpeechToTextParams

from ..media.audio import Wave
from ..outputs import CompletionOutput
from ..sampling import SamplingParams
from .decoded import decoded
from .joiner import TextJoiner
from .piece import Call, Piece, Wish
from .result import Segment, Transcription, Word
from .speech import Speech
from .split import split_audio

Steps = Generator[list[Call], list[CompletionOutput], Transcription]


def advance(steps: Steps, made: list[CompletionOutput] | None) -> list[Call] | Transcription:
    """Give a clip the completions of its last round (None: it begins); the calls of its next one, or the whole."""
    try:
        return steps.send(made)  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as done:
        whole: Transcription = done.value
        return whole


class ClipTask:
    """One clip.

    Args:
        speech: The model's hooks.
        config: How the model takes clips.
        wave: `(samples,)` at its rate.
        wish: What is wanted; its languages are checked.
    """

    def __init__(self, speech: Speech, config: SpeechToTextConfig, wave: Wave, wish: Wish) -> None:
        self.speech, self.config, self.wish, self.wave = speech, config, wish, wave
        self.language = wish.language
        rule = config.fallback
        higher = [t for t in rule.temperatures if t > wish.temperature] if rule else []
        self.temperatures = [wish.temperature, *higher]
        params = SpeechToTextParams(
            audio=wave,
            stt_config=config,
            model_config=speech.model,
            language=self.language,
            task_type=wish.task,
            request_prompt=wish.prompt,
            to_language=wish.to_language,
            timestamps=wish.timestamps,
        )
        self.pieces = [Piece(c, replace(params, audio=wave[c.start : c.stop])) for c in split_audio(wave, config)]

    @property
    def shows_tokens(self) -> bool:
        """Whether what the model writes is the text as it stands, so that it may be shown while it is written."""
        changed = self.speech.changes_text or self._reads_language
        return self.config.fallback is None and self.wish.timestamps is None and not changed

    @property
    def _reads_language(self) -> bool:
        """Whether the language stands before the text."""
        return self.language is None and self.speech.writes_language

    def steps(self) -> Steps:
        """Yields calls, is sent their completions in order, and returns the transcription."""
        yield from self._listen()
        for piece in self.pieces:
            piece.params = replace(piece.params, language=self.language)
        prompts = [self.speech.prompt(piece.params) for piece in self.pieces]
        for temperature in self.temperatures:
            left = [i for i, piece in enumerate(self.pieces) if not piece.settled]
            if not left:
                break
            params = [self.speech.sampling(self.pieces[i].params, temperature, self._seed(i)) for i in left]
            made = yield [Call(prompts[i], p, i, temperature) for i, p in zip(left, params)]
            for i, completion in zip(left, made):
                self.settle(i, completion, temperature)
        yield from self._align()
        return self._joined()

    def _seed(self, index: int) -> int | None:
        """Of a piece's draws: who asks for the likeliest text gets the same again, whatever was drawn for others before."""
        return index if self.wish.temperature == 0 else None

    def settle(self, index: int, completion: CompletionOutput, temperature: float) -> bool:
        """Take what the model wrote for a piece; whether it stays. The last temperature's stays whatever it is."""
        piece, last = self.pieces[index], temperature == self.temperatures[-1]
        if not piece.settled:
            piece.found = decoded(completion, self.speech.engine.eos_token_ids, temperature, piece.no_speech_prob)
            piece.settled = last or not piece.found.is_doubtful(self.config.fallback)
        return piece.settled

    def visible_text(self, index: int) -> str:
        """What a reader should see of a piece that stays."""
        piece = self.pieces[index]
        assert piece.found is not None
        if piece.found.is_silence(self.config.fallback):
            return ""
        if self.wish.timestamps is None:
            return self.speech.visible(self._written(piece)[1])
        return "".join(segment.text for segment in self._said(piece))

    def _written(self, piece: Piece) -> tuple[str | None, str]:
        """The language as a piece that stays names it, and its text."""
        assert piece.found is not None
        text = piece.found.output.text
        return self.speech.split_language(text) if self._reads_language else (self.language, text)

    def _said(self, piece: Piece) -> list[SpeechSegment]:
        """What was said when in a piece that stays."""
        assert piece.found is not None
        if piece.said is None:
            piece.said = self.speech.segments(piece.found.output, piece.params)
        return piece.said

    def _align(self) -> Generator[list[Call], list[CompletionOutput], None]:
        """Where times of words are wanted, look at how the model attends over the clip while it reads its own text."""
        asked: list[tuple[Piece, Call]] = []
        for piece in self.pieces if self.wish.timestamps == "word" else ():
            assert piece.found is not None
            if not piece.found.is_silence(self.config.fallback):
                prompt = self.speech.alignment_prompt(piece.found.output, piece.params)
                asked += [(piece, Call(prompt, _READING))] if prompt is not None else []
        made = (yield [call for _, call in asked]) if asked else []
        for (piece, _), completion in zip(asked, made):
            assert piece.found is not None
            output = replace(piece.found.output, attention=completion.cross_attention)
            piece.found, piece.said = replace(piece.found, output=output), None

    # ---- before anything is written ---------------------------------------------------------------------------------

    def _listen(self) -> Generator[list[Call], list[CompletionOutput], None]:
        """Find out which language is spoken, where nobody said it, and whether anybody speaks."""
        calls: list[Call] = []
        languages = self.speech.language_tokens() if self.language is None and self.speech.detects_language else {}
        first = self.speech.detection_prompt(self.pieces[0].params) if languages else None
        if first is not None:
            calls.append(Call(first, _one_of(list(languages))))
        listened = self._no_speech_calls()
        calls += listened
        made = (yield calls) if calls else []
        if first is not None:
            self.language = languages[made[0].token_ids[0]]
        elif self.language is None:
            self.language = self.speech.validate_language(None)
        for piece, completion in zip(self.pieces, made[len(made) - len(listened) :]):
            piece.no_speech_prob = math.exp(completion.cumulative_logprob or 0.0)

    def _no_speech_calls(self) -> list[Call]:
        rule = self.config.fallback
        token = self.speech.no_speech_token() if rule is not None and rule.no_speech is not None else None
        if token is None:
            return []
        prompts = [self.speech.detection_prompt(piece.params) for piece in self.pieces]
        if any(prompt is None for prompt in prompts):
            return []
        return [Call(prompt, _one_of([token])) for prompt in prompts]

    # ---- after everything is written --------------------------------------------------------------------------------

    def _joined(self) -> Transcription:
        joiner = TextJoiner()
        segments: list[Segment] = []
        words: list[Word] = []
        for i, piece in enumerate(self.pieces):
            joiner.next_piece()
            joiner.add(self.visible_text(i))
            found, more = self._timed(piece, i)
            segments += [replace(s, id=len(segments) + n) for n, s in enumerate(found)]
            words += more
        duration = len(self.wave) / self.config.sample_rate
        return Transcription(
            text=joiner.text,
            language=next(filter(None, (self._written(piece)[0] for piece in self.pieces)), None),
            duration=duration,
            segments=tuple(segments),
            words=tuple(words) if self.wish.timestamps == "word" else None,
            task=self.wish.task,
            audio_tokens=self.speech.audio_tokens(duration, self.config),
        )

    def _timed(self, piece: Piece, index: int) -> tuple[list[Segment], list[Word]]:
        """A piece's segments and words, in seconds of the clip."""
        assert piece.found is not None
        text = self.visible_text(index)
        if not text.strip():
            return [], []
        rate = self.config.sample_rate
        start, length = piece.chunk.start / rate, (piece.chunk.stop - piece.chunk.start) / rate
        common = Segment(
            id=0,
            seek=round(start * 100),
            start=start,
            end=start + length,
            text=text,
            tokens=tuple(piece.found.output.token_ids),
            temperature=piece.found.temperature,
            avg_logprob=piece.found.output.avg_logprob,
            compression_ratio=piece.found.compression_ratio,
            no_speech_prob=piece.found.no_speech_prob,
        )
        if self.wish.timestamps is None:
            return [common], []
        segments: list[Segment] = []
        words: list[Word] = []
        earliest = 0.0
        for said in self._said(piece):
            begin, end = _within(said.start, said.end, earliest, length)
            earliest = begin
            tokens = tuple(said.token_ids)
            segments.append(replace(common, start=start + begin, end=start + end, text=said.text, tokens=tokens))
            first = begin
            for word in said.words:
                first, last = _within(word.start, word.end, first, length)
                words.append(Word(word.word, start + first, start + last))
        return segments, words


_READING = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False)
"""For a prompt that is only read: less than a token cannot be asked for."""


def _within(start: float, end: float, earliest: float, latest: float) -> tuple[float, float]:
    """A time that starts no earlier than the one before it, and ends within its piece of the clip."""
    start = min(max(start, earliest), latest)
    return start, min(max(end, start), latest)


def _one_of(tokens: Sequence[int]) -> SamplingParams:
    """The likeliest of some tokens, and how likely the model finds it."""
    return SamplingParams(
        temperature=0.0, max_tokens=1, allowed_token_ids=tokens, logprobs=0, ignore_eos=True, detokenize=False
    )

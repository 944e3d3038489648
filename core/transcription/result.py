"""What a transcription gives back, under the names that OpenAI's and vLLM's users know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import EngineError

Format = Literal["text", "json", "verbose_json", "srt", "vtt"]


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds from the start of the clip."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A piece of the text.

    Attributes:
        id: Its number, from 0.
        seek: Where the piece of the clip that it was heard in starts, in hundredths of a second.
        start, end: When it was said, in seconds from the start of the clip; without time stamps, the piece of the clip that
            it was heard in.
        text: What was said.
        tokens: The model's.
        temperature: That they were drawn at.
        avg_logprob: Mean log-probability of the tokens of the piece of the clip.
        compression_ratio: Bytes of the text of the piece of the clip, to those that zlib needs.
        no_speech_prob: Probability that nobody speaks there; 0 where the model does not say.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: Sequence[int] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float = 0.0


@dataclass(frozen=True)
class Transcription:
    """The text of one clip.

    Attributes:
        text: All of it; empty where nobody speaks.
        language: Code of the language that is spoken, as given or detected; None: the model does not say.
        duration: Of the clip, in seconds.
        segments: The text in pieces: with time stamps as the model tells them, without one for each piece of the clip.
        words: Where time stamps of words were asked for; None otherwise.
        task: `transcribe` or `translate`.
        audio_tokens: About how many tokens the clip counts for, by the plugin's own estimate; None: unknown.
        error: What ended it, with `on_error="return"`.
    """

    text: str
    language: str | None = None
    duration: float = 0.0
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] | None = None
    task: str = "transcribe"
    audio_tokens: int | None = None
    error: EngineError | None = None

    def render(self, format: Format) -> str:
        """As the text of a file: plain text, JSON, or subtitles."""
        from .writers import render

        return render(self, format)


@dataclass(frozen=True)
class TranscriptionDelta:
    """What is new in a transcription that is streamed.

    Attributes:
        index: Which of the clips.
        text: To be put behind what came before.
        done: The whole, with the last of a clip.
    """

    index: int
    text: str
    done: Transcription | None = None

"""What moves through a transcription: what is wanted, the pieces of a clip, what is asked of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sdk.speech import SpeechSegment, SpeechToTextParams, Task, Timestamps

from ..sampling import SamplingParams
from .decoded import Decoded
from .split import Chunk


@dataclass(frozen=True)
class Wish:
    """What the caller wants of every clip.

    Attributes:
        task: `translate` puts it into another language.
        language: As the caller named it; None: to be found out.
        to_language: To translate to; None: the model's own choice.
        prompt: Text that comes before.
        temperature: To start at.
        timestamps: Of segments, of words, or none.
    """

    task: Task = "transcribe"
    language: str | None = None
    to_language: str | None = None
    prompt: str = ""
    temperature: float = 0.0
    timestamps: Timestamps | None = None


class Call(NamedTuple):
    """One prompt to be completed.

    Attributes:
        prompt: As `LLM.generate` takes it.
        params: How.
        piece: Which piece of the clip's text this is; None where it is none.
        temperature: Which of the temperatures that are tried this is; a plugin may draw at another.
    """

    prompt: Any
    params: SamplingParams
    piece: int | None = None
    temperature: float = 0.0


@dataclass
class Piece:
    """A piece of the clip.

    Attributes:
        chunk: Which samples.
        params: As the plugin's hooks see it.
        no_speech_prob: As the model says before it writes.
        found: The best text so far.
        settled: Whether it stays.
        said: Its segments, once somebody has asked.
    """

    chunk: Chunk
    params: SpeechToTextParams
    no_speech_prob: float = 0.0
    found: Decoded | None = None
    settled: bool = False
    said: list[SpeechSegment] | None = None

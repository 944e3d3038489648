"""The values that pass between the engine and a speech plugin's hooks. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Task = Literal["transcribe", "translate"]
Timestamps = Literal["segment", "word"]


def is_clip(value: Any) -> TypeGuard[tuple[Any, Any]]:
    """Whether a value is one clip as `(wave, rate)`, and not two clips."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Real)


@dataclass(frozen=True)
class DecodingFallback:
    """When a text is not believed, and what is tried then.

    Attributes:
        temperatures: Tried in turn, each above the one before, after the one that the caller gave.
        compression_ratio: A text that zlib makes smaller than its bytes by more than this repeats itself.
        avg_logprob: A text whose tokens have a lower average log-probability is a guess.
        no_speech: Where the probability of no speech is higher, and the average log-probability lower than its bound,
            the clip is silent and its text is dropped.
    """

    temperatures: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio: float | None = 2.4
    avg_logprob: float | None = -1.0
    no_speech: float | None = 0.6

    def __post_init__(self) -> None:
        if list(self.temperatures) != sorted({float(t) for t in self.temperatures}) or any(
            t <= 0 for t in self.temperatures
        ):
            raise ValueError(f"temperatures must be above 0, and rise: {self.temperatures!r}")


@dataclass(frozen=True)
class SpeechToTextConfig:
    """How clips are brought to a model.

    Attributes:
        sample_rate: Samples a second.
        max_audio_clip_s: The longest clip, in seconds, that the model takes at once; None: any.
        overlap_chunk_second: Where a longer clip is cut: within so many seconds before the longest. It is a search
            window; no sample is heard twice.
        min_energy_split_window_size: Samples over which loudness is measured when the quietest place is looked for;
            None: clips are not cut, the model does it by itself.
        fallback: When and how a clip is decoded anew; None: never.
    """

    sample_rate: int = 16_000
    max_audio_clip_s: float | None = 30
    overlap_chunk_second: float = 1
    min_energy_split_window_size: int | None = 1600
    fallback: DecodingFallback | None = None

    def __post_init__(self) -> None:
        window, clip = self.min_energy_split_window_size, self.max_audio_clip_s
        if self.sample_rate < 1:
            raise ValueError(f"sample_rate must be above 0, not {self.sample_rate}")
        if clip is not None and clip * self.sample_rate < 1:
            raise ValueError(f"max_audio_clip_s must hold a sample, not {clip}")
        if clip is None or window is None:
            return
        if not 0 < self.overlap_chunk_second < clip:
            raise ValueError(
                f"overlap_chunk_second must be above 0 and below max_audio_clip_s={clip}, not {self.overlap_chunk_second}"
            )
        if not 1 <= window <= self.overlap_chunk_second * self.sample_rate:
            raise ValueError(
                f"min_energy_split_window_size is {window} samples; it must fit into overlap_chunk_second, "
                f"{self.overlap_chunk_second * self.sample_rate:g} samples"
            )

    @property
    def allow_audio_chunking(self) -> bool:
        """Whether the engine cuts clips that are longer than `max_audio_clip_s`."""
        return self.min_energy_split_window_size is not None and self.max_audio_clip_s is not None


@dataclass(frozen=True)
class SpeechModel:
    """The checkpoint, for hooks that look things up in it.

    Attributes:
        model: Its folder.
        hf_config: Its parsed config.
        tokenizer: The HF tokenizer.
        max_model_len: Longest sequence in tokens, prompt and output together.
        options: The plugin's own validated options, if it declares some.
    """

    model: str
    hf_config: Any
    tokenizer: Any
    max_model_len: int
    load_processor: Callable[[], Any] = field(repr=False)
    options: Any = None

    def get_hf_processor(self) -> Any:
        """The HF processor, loaded once."""
        return self.load_processor()


@dataclass(frozen=True)
class SpeechToTextParams:
    """One clip, and what the caller wants of it.

    Attributes:
        audio: `(samples,)` float32, one channel at `stt_config.sample_rate`.
        stt_config: What the plugin said.
        model_config: The checkpoint.
        language: Code of the language that is spoken; None: nobody knows.
        task_type: `translate` puts it into another language.
        request_prompt: Text that comes before, such as names to expect; empty: none.
        to_language: Code of the language to translate to; None: the model's own choice.
        timestamps: Times of segments or of words are wanted; None: the text alone.
    """

    audio: NDArray[np.float32] = field(repr=False)
    stt_config: SpeechToTextConfig
    model_config: SpeechModel
    language: str | None = None
    task_type: Task = "transcribe"
    request_prompt: str = ""
    to_language: str | None = None
    timestamps: Timestamps | None = None


@dataclass(frozen=True)
class SpeechOutput:
    """What the model wrote for one clip.

    Attributes:
        text: Without special tokens.
        token_ids: With all of them; the end token is not among them.
        finish_reason: `stop` or `length`.
        avg_logprob: Mean log-probability of the tokens.
        attention: `(heads, tokens, states)`, how the tokens of the prompt that `get_alignment_prompt` gave attend over the
            encoder's states; None where there was none.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None = None
    avg_logprob: float = 0.0
    attention: NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SpeechWord:
    """A word and its time, in seconds from the start of its clip."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class SpeechSegment:
    """A piece of text and its time, in seconds from the start of its clip.

    Attributes:
        words: Its words, where they are wanted.
    """

    start: float
    end: float
    text: str
    token_ids: Sequence[int] = ()
    words: Sequence[SpeechWord] = ()

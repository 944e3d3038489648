"""A model's speech plugin as the engine uses it: its hooks, each call of which fails as a plugin's and says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sdk.speech import SpeechModel, SpeechOutput, SpeechSegment, SpeechToTextConfig, SpeechToTextParams, Task
from sdk.transcription import SupportsTranscription

from ..errors import EngineError, InvalidRequestError, PluginContractError, PluginRuntimeError
from ..sampling import SamplingParams
from .support import Speaking, speech_class

if TYPE_CHECKING:
    from ..served import SpeechEngine

T = TypeVar("T")


class Speech:
    """The hooks of one loaded model.

    Args:
        engine: With the model.

    Raises:
        InvalidRequestError: The model does not transcribe.
    """

    def __init__(self, engine: SpeechEngine) -> None:
        self.engine, self.plugin = engine, engine.plugin.describe()
        found = speech_class(engine.plugin)
        if found is None:
            raise InvalidRequestError(
                f"{engine.plugin.architecture.name} ({self.plugin}) does not transcribe; it offers: "
                f"{', '.join(engine.capabilities.tasks)}",
                code="unsupported_task",
                param="task",
            )
        self.hooks: Speaking = found
        self.model = SpeechModel(
            str(engine.checkpoint.folder),
            engine.checkpoint.hf_config,
            engine.inputs.tokenizer,
            engine.plan.max_model_len,
            self._load_processor,
            engine.inputs.options,
        )

    def _load_processor(self) -> Any:
        processor = self.engine.inputs.mm_processor
        if processor is None:
            raise PluginContractError(
                f"{self.plugin}: {self.engine.plugin.architecture.name} has no processor", plugin=self.plugin
            )
        return processor.info.get_hf_processor()

    def config(self, task: Task) -> SpeechToTextConfig:
        """How clips are brought to the model."""
        return self._call("get_speech_to_text_config", SpeechToTextConfig, self.model, task)

    def validate_language(self, language: str | None, param: str = "language") -> str | None:
        """The code of a language, as the plugin knows it."""
        try:
            found = self._call("validate_language", (str, type(None)), language)
        except InvalidRequestError as e:
            e.param = param
            raise
        except PluginRuntimeError as e:
            if isinstance(e.__cause__, ValueError):  # how the guides' plugins refuse one
                raise InvalidRequestError(str(e.__cause__), code="unsupported_language", param=param) from e
            raise
        return found

    @property
    def detects_language(self) -> bool:
        """Whether the model can tell which language is spoken."""
        return self.hooks.get_language_token_ids.__func__ is not SupportsTranscription.get_language_token_ids.__func__  # type: ignore[attr-defined]

    @property
    def writes_language(self) -> bool:
        """Whether the model writes the language down before the text where nobody said it."""
        return self.hooks.split_language.__func__ is not SupportsTranscription.split_language.__func__  # type: ignore[attr-defined]

    @property
    def changes_text(self) -> bool:
        """Whether the text that a reader sees is known only once the whole of a piece is."""
        return self.hooks.post_process_output.__func__ is not SupportsTranscription.post_process_output.__func__  # type: ignore[attr-defined]

    def prompt(self, params: SpeechToTextParams) -> Mapping[str, Any]:
        """The prompt for a piece of a clip."""
        return self._call("get_generation_prompt", Mapping, params)

    def detection_prompt(self, params: SpeechToTextParams) -> Mapping[str, Any] | None:
        """The prompt after which the language stands; None where this model cannot tell."""
        return self._call("get_language_detection_prompt", (Mapping, type(None)), params)

    def alignment_prompt(self, output: SpeechOutput, params: SpeechToTextParams) -> Mapping[str, Any] | None:
        """The prompt that tells when words were said; None where the plugin has none."""
        return self._call("get_alignment_prompt", (Mapping, type(None)), output, params)

    def language_tokens(self) -> dict[int, str]:
        """Token → code of the language that it stands for."""
        found = self._call("get_language_token_ids", Mapping, self.model)
        return {int(token): str(code) for code, token in found.items()}

    def no_speech_token(self) -> int | None:
        """The token of no speech."""
        return self._call("get_no_speech_token_id", (int, type(None)), self.model)

    def sampling(self, params: SpeechToTextParams, temperature: float, seed: int | None) -> SamplingParams:
        """How the text of a piece of a clip is drawn."""
        overrides = self._call("get_sampling_overrides", Mapping, params)
        given = {"temperature": temperature, "seed": seed, "max_tokens": None, "logprobs": 0, **overrides}
        try:
            return SamplingParams.from_mapping(given)
        except (InvalidRequestError, TypeError) as e:
            raise self._broken("get_sampling_overrides", str(e)) from e

    def split_language(self, text: str) -> tuple[str | None, str]:
        """The code of the language that stands before a piece's text, and the text."""
        found: tuple[Any, ...] = self._call("split_language", tuple, text)
        if len(found) != 2 or not isinstance(found[0], str | None) or not isinstance(found[1], str):
            raise self._broken("split_language", f"{found!r:.120} is not the code of a language, or None, and a text")
        return found[0], found[1]

    def visible(self, text: str) -> str:
        """What a reader should see of a piece's text."""
        return self._call("post_process_output", str, text)

    def segments(self, output: SpeechOutput, params: SpeechToTextParams) -> list[SpeechSegment]:
        """The pieces of a text with their times."""
        found = list(self._call("parse_segments", Sequence, output, params))
        for segment in found:
            if not isinstance(segment, SpeechSegment) or not _has_times(segment):
                raise self._broken("parse_segments", f"{segment!r:.120} is no SpeechSegment with times")
        return found

    def audio_tokens(self, seconds: float, config: SpeechToTextConfig) -> int | None:
        """About how many tokens a clip counts for."""
        return self._call("get_num_audio_tokens", (int, type(None)), seconds, config, self.model)

    def _call(self, name: str, kind: type[T] | tuple[type[T], ...], *arguments: Any) -> T:
        """Call a hook; whatever it raises that is not ours, or returns that it should not, becomes an error that names it."""
        try:
            made = getattr(self.hooks, name)(*arguments)
        except EngineError:
            raise
        except Exception as e:
            raise self._broken(name, f"{type(e).__name__}: {e}") from e
        if not isinstance(made, kind):
            raise self._broken(name, f"it returned a {type(made).__name__}")
        return made

    def _broken(self, name: str, message: str) -> PluginRuntimeError:
        return PluginRuntimeError(message, plugin=self.plugin, hook=name)


def _has_times(segment: SpeechSegment) -> bool:
    times = [segment.start, segment.end, *(time for word in segment.words for time in (word.start, word.end))]
    return all(math.isfinite(time) for time in times)

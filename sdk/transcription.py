"""Speech to text: what a plugin says of its model, so that the engine can cut, prompt, detect and join by itself.

`SupportsTranscription` is mixed into the model class or stands alone (`Architecture.transcription`). All of its methods
are class methods that look at no weights, and this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ._contract import check_class, hook
from ._speech_contract import accept_keywords, check_languages, check_promises
from .errors import InvalidRequestError
from .speech import (
    DecodingFallback,
    SpeechModel,
    SpeechOutput,
    SpeechSegment,
    SpeechToTextConfig,
    SpeechToTextParams,
    SpeechWord,
    Task,
)

if TYPE_CHECKING:
    Prompt = Mapping[str, Any]


class SupportsTranscription:
    """A model that turns speech into text.

    A class that implements it is offered for transcription without another word. Two hooks have no default:
    `get_speech_to_text_config` and `get_generation_prompt`.

    Raises:
        TypeError: When the class is made: a hook is missing or misspelt, the table of languages is unusable, or a
            promise (time stamps, language detection) has no hook that keeps it.
    """

    supports_transcription: ClassVar[bool] = True
    supported_languages: ClassVar[Mapping[str, str]]
    """Code → name in English, e.g. `{"en": "English"}`."""
    supports_transcription_only: ClassVar[bool] = False
    """Whether it is offered for nothing else: no chat, no text by itself."""
    supports_segment_timestamp: ClassVar[bool] = False
    """Whether `parse_segments` tells when each piece of text was said."""
    supports_word_timestamp: ClassVar[bool] = False
    """Whether it tells so for each word."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        accept_keywords(cls)
        check_class(cls)
        check_languages(cls)
        check_promises(cls, SupportsTranscription)

    # ---- what a plugin writes ---------------------------------------------------------------------------------------

    @classmethod
    @hook
    def get_speech_to_text_config(cls, model_config: SpeechModel, task_type: Task) -> SpeechToTextConfig:
        """The rate that the model hears at, and how clips longer than it takes are cut."""
        raise NotImplementedError(f"{cls.__qualname__} has no get_speech_to_text_config")

    @classmethod
    @hook
    def get_generation_prompt(cls, params: SpeechToTextParams) -> Prompt:
        """The prompt for one clip, in either form.

        With placeholders, `{"prompt" or "prompt_token_ids": …, "multi_modal_data": {"audio": (wave, rate)}}`; of an
        encoder and a decoder, `{"encoder_prompt": {"prompt": "", "multi_modal_data": {"audio": (wave, rate)}},
        "decoder_prompt": text or {"prompt_token_ids": […]}}`.

        The older guides' form is taken too: a method with the keywords `audio, stt_config, model_config, language,
        task_type, request_prompt, to_language`, or some of them, in the place of `params`.
        """
        raise NotImplementedError(f"{cls.__qualname__} has no get_generation_prompt")

    # ---- what it may write ------------------------------------------------------------------------------------------

    @classmethod
    @hook
    def validate_language(cls, language: str | None) -> str | None:
        """The code of the language to transcribe.

        The default leaves None as it is, and takes codes (`en`), names (`English`) and codes with a region (`en-US`) of
        `supported_languages`. Override it for a model that must know, and return its default, with a warning.

        Args:
            language: As the caller gave it; None where nobody did and the model does not detect it.

        Raises:
            InvalidRequestError: It is no language of this model.
        """
        if language is None:
            return None
        asked = language.strip().casefold() if isinstance(language, str) else ""
        by_name = {name.casefold(): code for code, name in cls.supported_languages.items()}
        codes = {code.casefold(): code for code in cls.supported_languages}
        for known in (asked, asked.replace("_", "-").partition("-")[0]):
            found = codes.get(known) or by_name.get(known)
            if found is not None:
                return found
        listed = ", ".join(cls.supported_languages)
        raise InvalidRequestError(
            f"unsupported language {str(language)[:40]!r}; this model knows: {listed}",
            code="unsupported_language",
            param="language",
        )

    @classmethod
    @hook
    def get_language_detection_prompt(cls, params: SpeechToTextParams) -> Prompt | None:
        """A prompt after which the likeliest of `get_language_token_ids` is the clip's language; None: it cannot tell."""
        return None

    @classmethod
    @hook
    def get_language_token_ids(cls, model_config: SpeechModel) -> Mapping[str, int]:
        """Code → the token that stands for the language."""
        raise NotImplementedError(f"{cls.__qualname__} has no get_language_token_ids")

    @classmethod
    @hook
    def split_language(cls, text: str) -> tuple[str | None, str]:
        """The code of the language that the model writes down before a clip's text, and the text behind it.

        Asked only where neither the caller nor `validate_language` nor detection said the language. The default: none.
        """
        return None, text

    @classmethod
    @hook
    def get_no_speech_token_id(cls, model_config: SpeechModel) -> int | None:
        """The token whose probability after the detection prompt is that of no speech at all; None: there is none."""
        return None

    @classmethod
    @hook
    def get_sampling_overrides(cls, params: SpeechToTextParams) -> Mapping[str, Any]:
        """Sampling parameters that this clip needs, e.g. `logits_processors` that keep the rules of its time stamps."""
        return {}

    @classmethod
    @hook
    def get_alignment_prompt(cls, output: SpeechOutput, params: SpeechToTextParams) -> Prompt | None:
        """A prompt that tells when words were said, asked for where the caller wants that and the text is known.

        With `"cross_attention_heads": [(layer, head), …]` beside its parts, `parse_segments` finds in `output.attention` how
        its tokens attend over the clip in these heads. None: there is nothing to align, or no way.
        """
        return None

    @classmethod
    @hook
    def post_process_output(cls, text: str) -> str:
        """What a reader should see of a clip's text; the default: all of it."""
        return text

    @classmethod
    @hook
    def parse_segments(cls, output: SpeechOutput, params: SpeechToTextParams) -> Sequence[SpeechSegment]:
        """The pieces of a clip's text with their times, in order; asked for where the caller wants time stamps."""
        raise NotImplementedError(f"{cls.__qualname__} has no parse_segments")

    @classmethod
    @hook
    def get_num_audio_tokens(
        cls, audio_duration_s: float, stt_config: SpeechToTextConfig, model_config: SpeechModel
    ) -> int | None:
        """About how many tokens a clip counts for in usage statistics, told from its duration; None: unknown."""
        return None


def supports_transcription(model: object) -> bool:
    """Whether a model, or a class, implements `SupportsTranscription`."""
    return bool(getattr(model, "supports_transcription", False))


__all__ = [
    "DecodingFallback",
    "SpeechModel",
    "SpeechOutput",
    "SpeechSegment",
    "SpeechToTextConfig",
    "SpeechToTextParams",
    "SpeechWord",
    "SupportsTranscription",
    "supports_transcription",
]

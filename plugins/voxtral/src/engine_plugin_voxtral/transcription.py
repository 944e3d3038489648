"""How Voxtral transcribes: its own form of request, which is a prompt with a clip in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from sdk.errors import InvalidRequestError
from sdk.speech import SpeechModel, SpeechToTextConfig, SpeechToTextParams, Task
from sdk.transcription import SupportsTranscription

_LANGUAGE = re.compile(r"lang:([a-z]{2})")
"""Before `[TRANSCRIBE]` in a request; the model writes it before the text where nobody said which language is spoken."""


class VoxtralTranscription(SupportsTranscription):
    """The text alone, in the language that is spoken; a clip of any length is one prompt."""

    supported_languages: ClassVar[Mapping[str, str]] = {
        "ar": "Arabic",
        "nl": "Dutch",
        "en": "English",
        "fr": "French",
        "de": "German",
        "hi": "Hindi",
        "it": "Italian",
        "pt": "Portuguese",
        "es": "Spanish",
    }

    @classmethod
    def get_speech_to_text_config(cls, model_config: SpeechModel, task_type: Task) -> SpeechToTextConfig:
        if task_type != "transcribe":
            raise InvalidRequestError(
                "Voxtral's transcription requests know no translation; ask for one in a chat with the clip",
                code="unsupported_task",
                param="task",
            )
        extractor = model_config.get_hf_processor().feature_extractor
        rate = int(extractor.sampling_rate)
        return SpeechToTextConfig(rate, extractor.n_samples / rate, min_energy_split_window_size=None)

    @classmethod
    def get_generation_prompt(cls, params: SpeechToTextParams) -> Mapping[str, Any]:
        if params.request_prompt.strip():
            raise InvalidRequestError(
                "Voxtral's transcription requests take no text that came before",
                code="unsupported_parameter",
                param="prompt",
            )
        language = "" if params.language is None else f"lang:{params.language}"
        clip = (params.audio, params.stt_config.sample_rate)
        return {"prompt": f"[INST][AUDIO][/INST]{language}[TRANSCRIBE]", "multi_modal_data": {"audio": clip}}

    @classmethod
    def split_language(cls, text: str) -> tuple[str | None, str]:
        found = _LANGUAGE.match(text)
        return (found[1], text[found.end() :]) if found else (None, text)

    @classmethod
    def get_num_audio_tokens(
        cls, audio_duration_s: float, stt_config: SpeechToTextConfig, model_config: SpeechModel
    ) -> int:
        windows = max(1, math.ceil(audio_duration_s / (stt_config.max_audio_clip_s or 30.0)))
        return int(windows * model_config.get_hf_processor().rows)

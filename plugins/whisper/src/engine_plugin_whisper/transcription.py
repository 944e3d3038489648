"""How Whisper transcribes: its prompt, its languages, its time stamps."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sdk.errors import InvalidRequestError
from sdk.speech import (
    DecodingFallback,
    SpeechModel,
    SpeechOutput,
    SpeechSegment,
    SpeechToTextConfig,
    SpeechToTextParams,
    SpeechWord,
    Task,
)
from sdk.transcription import SupportsTranscription

from .languages import LANGUAGES, UNSPACED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
DEFAULT_LANGUAGE = "en"
MOST_HEADS = 64
ENGLISH_ONLY = 51_864
"""Vocabulary of the published English-only models, one token less than the others'."""


class WhisperTranscription(SupportsTranscription):
    """Segments with time stamps, in any of a hundred languages, or translated into English."""

    supported_languages: ClassVar[Mapping[str, str]] = LANGUAGES
    supports_segment_timestamp: ClassVar[bool] = True
    supports_word_timestamp: ClassVar[bool] = True

    # ---- what goes in -----------------------------------------------------------------------------------------------

    @classmethod
    def get_speech_to_text_config(cls, model_config: SpeechModel, task_type: Task) -> SpeechToTextConfig:
        extractor = model_config.get_hf_processor().feature_extractor
        rate = int(extractor.sampling_rate)
        return SpeechToTextConfig(rate, extractor.n_samples / rate, fallback=DecodingFallback())

    @classmethod
    def validate_language(cls, language: str | None) -> str | None:
        if language is None:
            logger.warning("nobody said which language is spoken: %s is assumed", LANGUAGES[DEFAULT_LANGUAGE])
        return super().validate_language(DEFAULT_LANGUAGE if language is None else language)

    @classmethod
    def get_generation_prompt(cls, params: SpeechToTextParams) -> Mapping[str, Any]:
        model = params.model_config
        ids = [*cls._previous_ids(params), _token(model, "<|startoftranscript|>")]
        if _is_multilingual(model):
            ids += [cls._language_id(params), _token(model, f"<|{params.task_type}|>")]
        else:
            cls._check_english(params)
        if params.timestamps is None:
            ids.append(_token(model, "<|notimestamps|>"))
        return _prompt(params, ids)

    @classmethod
    def get_language_detection_prompt(cls, params: SpeechToTextParams) -> Mapping[str, Any]:
        return _prompt(params, [_token(params.model_config, "<|startoftranscript|>")])

    @classmethod
    def get_language_token_ids(cls, model_config: SpeechModel) -> Mapping[str, int]:
        if not _is_multilingual(model_config):
            return {}
        known = model_config.tokenizer.get_added_vocab()
        return {code: known[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in known}

    @classmethod
    def get_no_speech_token_id(cls, model_config: SpeechModel) -> int | None:
        known = model_config.tokenizer.get_added_vocab()
        found: int | None = known.get("<|nospeech|>", known.get("<|nocaptions|>"))  # as later and first models call it
        return found

    @classmethod
    def get_sampling_overrides(cls, params: SpeechToTextParams) -> Mapping[str, Any]:
        from .rules import Suppressed, TimestampRules

        model = params.model_config
        said = _generation_config(model)
        always, first = (tuple(said.get(name) or ()) for name in ("suppress_tokens", "begin_suppress_tokens"))
        rules: list[Any] = [Suppressed(always, first)]
        if params.timestamps is not None:
            no_timestamps = _token(model, "<|notimestamps|>")
            end, most = _token(model, "<|endoftext|>"), said.get("max_initial_timestamp_index")
            rules.append(TimestampRules(no_timestamps, end, no_timestamps + 1, most))
        return {"logits_processors": rules}

    @classmethod
    def get_num_audio_tokens(
        cls, audio_duration_s: float, stt_config: SpeechToTextConfig, model_config: SpeechModel
    ) -> int:
        return math.ceil(audio_duration_s / _seconds_per_state(stt_config, model_config))

    # ---- what comes out ---------------------------------------------------------------------------------------------

    @classmethod
    def parse_segments(cls, output: SpeechOutput, params: SpeechToTextParams) -> Sequence[SpeechSegment]:
        model, stt = params.model_config, params.stt_config
        end, begin = _token(model, "<|endoftext|>"), _token(model, "<|notimestamps|>") + 1
        step = _seconds_per_state(stt, model)
        segments: list[SpeechSegment] = []
        start, said = 0.0, list[int]()
        for token in output.token_ids:
            if token < begin:
                said += [token] if token < end else []
                continue
            time = (token - begin) * step
            if said:
                segments.append(cls._segment(model, start, time, said))
            start, said = time, []
        if said:  # the text was cut off before its last stamp
            segments.append(cls._segment(model, start, len(params.audio) / stt.sample_rate, said))
        return segments if output.attention is None else cls._with_words(segments, output.attention, params)

    @classmethod
    def get_alignment_prompt(cls, output: SpeechOutput, params: SpeechToTextParams) -> Mapping[str, Any] | None:
        """The text without its time stamps: what is looked at is how its tokens follow the clip."""
        model, before = params.model_config, cls._alignment_prefix(params)
        ids = _text_ids(output, model)
        heads = _generation_config(model).get("alignment_heads") or _upper_heads(model)
        if not ids:
            return None
        ids = [*before, *ids][: model.max_model_len - 1]
        return {**_prompt(params, ids), "cross_attention_heads": [tuple(pair) for pair in heads]}

    @classmethod
    def _alignment_prefix(cls, params: SpeechToTextParams) -> list[int]:
        plain = replace(params, timestamps=None, request_prompt="")
        ids: list[int] = cls.get_generation_prompt(plain)["decoder_prompt"]["prompt_token_ids"]
        return ids

    @classmethod
    def _with_words(
        cls, segments: Sequence[SpeechSegment], attention: NDArray[np.float32], params: SpeechToTextParams
    ) -> list[SpeechSegment]:
        """The segments with their words. A token is written by the row before its own; the last row writes the end."""
        from .words import row_starts, split_words

        model, stt = params.model_config, params.stt_config
        step = _seconds_per_state(stt, model)
        heard = max(1, math.ceil(len(params.audio) / stt.sample_rate / step))
        rows = attention[:, len(cls._alignment_prefix(params)) - 1 :, :heard]
        times = row_starts(rows, model.hf_config.median_filter_width) * step
        made, at = [], 0
        for segment in segments:
            words = []
            for word, count in split_words(segment.token_ids, model.tokenizer, spaces=params.language not in UNSPACED):
                start, end = (float(times[min(n, len(times) - 1)]) for n in (at, at + count))
                at += count
                if word:
                    words.append(SpeechWord(word, round(start, 3), round(end, 3)))
            made.append(replace(segment, words=tuple(words)))
        return made

    @classmethod
    def _segment(cls, model: SpeechModel, start: float, end: float, ids: Sequence[int]) -> SpeechSegment:
        text = model.tokenizer.decode(ids, skip_special_tokens=True)
        return SpeechSegment(round(start, 3), round(end, 3), text, tuple(ids))

    # ---- the parts of a prompt --------------------------------------------------------------------------------------

    @classmethod
    def _previous_ids(cls, params: SpeechToTextParams) -> list[int]:
        """The text that came before, its end first of all where it is too long: half of the positions are for it."""
        text, model = params.request_prompt.strip(), params.model_config
        if not text:
            return []
        ids: list[int] = model.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        most = min(model.hf_config.max_target_positions, model.max_model_len) // 2 - 1
        return [_token(model, "<|startofprev|>"), *ids[-most:]]

    @classmethod
    def _language_id(cls, params: SpeechToTextParams) -> int:
        if params.to_language not in (None, DEFAULT_LANGUAGE):
            raise InvalidRequestError(
                f"Whisper translates into English, not into {LANGUAGES.get(str(params.to_language), params.to_language)}",
                code="unsupported_language",
                param="to_language",
            )
        code = params.language if params.language is not None else cls.validate_language(None)
        known = cls.get_language_token_ids(params.model_config)
        if code not in known:
            raise InvalidRequestError(
                f"this checkpoint has no {LANGUAGES.get(str(code), code)}; it knows: {', '.join(known)}",
                code="unsupported_language",
                param="language",
            )
        return known[code]

    @classmethod
    def _check_english(cls, params: SpeechToTextParams) -> None:
        if params.language not in (None, "en"):
            raise InvalidRequestError(
                f"this checkpoint knows English alone, not {LANGUAGES.get(str(params.language), params.language)}",
                code="unsupported_language",
                param="language",
            )
        if params.task_type != "transcribe":
            raise InvalidRequestError(
                "this checkpoint knows English alone, so it does not translate", code="unsupported_task", param="task"
            )


def _text_ids(output: SpeechOutput, model: SpeechModel) -> list[int]:
    """The tokens that are neither special nor time stamps."""
    end = _token(model, "<|endoftext|>")
    return [token for token in output.token_ids if token < end]


def _upper_heads(model: SpeechModel) -> list[tuple[int, int]]:
    """Every head of the upper half of the layers, for a checkpoint that does not say which of them follow the clip."""
    layers, heads = model.hf_config.decoder_layers, model.hf_config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)][-MOST_HEADS:]


def _prompt(params: SpeechToTextParams, ids: list[int]) -> Mapping[str, Any]:
    clip = (params.audio, params.stt_config.sample_rate)
    return {
        "encoder_prompt": {"prompt": "", "multi_modal_data": {"audio": clip}},
        "decoder_prompt": {"prompt_token_ids": ids},
    }


def _token(model: SpeechModel, token: str) -> int:
    found: int = model.tokenizer.convert_tokens_to_ids(token)
    return found


def _seconds_per_state(stt_config: SpeechToTextConfig, model: SpeechModel) -> float:
    """How much time a state of the encoder stands for, and a time stamp counts."""
    seconds: float = (stt_config.max_audio_clip_s or 30.0) / model.hf_config.max_source_positions
    return seconds


def _generation_config(model: SpeechModel) -> dict[str, Any]:
    path = Path(model.model) / "generation_config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _is_multilingual(model: SpeechModel) -> bool:
    said = _generation_config(model).get("is_multilingual")
    return bool(model.hf_config.vocab_size != ENGLISH_ONLY if said is None else said)

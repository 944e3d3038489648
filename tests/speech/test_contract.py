"""A speech plugin's class is refused when it is made, where it would only fail later or be silently ignored."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import sdk
from sdk.errors import InvalidRequestError
from sdk.speech import is_clip
from sdk.transcription import (
    DecodingFallback,
    SpeechModel,
    SpeechToTextConfig,
    SpeechToTextParams,
    SupportsTranscription,
    supports_transcription,
)

MODEL = SpeechModel("folder", None, None, 448, lambda: None)
PARAMS = SpeechToTextParams(
    np.zeros(3, dtype=np.float32), SpeechToTextConfig(), MODEL, "en", "translate", "names", "de"
)
HOOKS = {
    "supported_languages": {"en": "English", "de": "German", "yue": "Cantonese", "pt-BR": "Brazilian"},
    "get_speech_to_text_config": classmethod(lambda cls, model_config, task_type: SpeechToTextConfig()),
    "get_generation_prompt": classmethod(lambda cls, params: {"prompt": "x"}),
}


def make(*bases: type, **members: Any) -> Any:
    return type("Mine", bases or (SupportsTranscription,), {**HOOKS, **members})


def test_a_class_with_the_two_hooks_and_a_table_is_enough() -> None:
    made = make()
    assert supports_transcription(made)
    assert not made.supports_transcription_only
    assert made.get_num_audio_tokens(3.0, SpeechToTextConfig(), MODEL) is None
    assert made.post_process_output(" a ") == " a "
    assert not supports_transcription(sdk.Model)


def test_it_may_be_the_model_itself_whose_hooks_are_checked_once_each() -> None:
    made = make(sdk.Model, sdk.SupportsMultiModal, SupportsTranscription, embed_multimodal=lambda self, **media: None)
    assert made.get_multimodal_embeddings is made.embed_multimodal
    with pytest.raises(TypeError, match="looks like the hook 'compute_logits'"):
        make(sdk.Model, SupportsTranscription, compute_logit=lambda self: None)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "must map codes to names"),
        (None, "must map codes to names"),
        (["en"], "must map codes to names"),
        ({"English": "en"}, "'English' is no code"),
        ({"EN": "English"}, "'EN' is no code"),
        ({1: "English"}, "1 is no code"),
        ({"en": ""}, "needs a name"),
        ({"en": None}, "needs a name"),
        ({"en": "English", "de": "english "}, "twice"),
    ],
)
def test_tables_of_languages_that_are_none(table: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        make(supported_languages=table)


def test_a_table_is_needed_and_may_be_inherited() -> None:
    with pytest.raises(TypeError, match="supported_languages must map"):
        type("Mine", (SupportsTranscription,), {k: v for k, v in HOOKS.items() if k != "supported_languages"})
    assert type("Theirs", (make(),), {}).supported_languages == HOOKS["supported_languages"]


@pytest.mark.parametrize("name", ["get_speech_to_text_config", "get_generation_prompt"])
def test_the_two_hooks_must_be_written(name: str) -> None:
    with pytest.raises(TypeError, match=f"must write {name}"):
        type("Mine", (SupportsTranscription,), {k: v for k, v in HOOKS.items() if k != name})


@pytest.mark.parametrize(
    ("members", "missing"),
    [
        ({"supports_segment_timestamp": True}, "parse_segments"),
        ({"supports_word_timestamp": True}, "parse_segments"),
        ({"get_language_token_ids": classmethod(lambda cls, model_config: {})}, "get_language_detection_prompt"),
        ({"get_language_detection_prompt": classmethod(lambda cls, params: None)}, "get_language_token_ids"),
        ({"get_no_speech_token_id": classmethod(lambda cls, model_config: 1)}, "get_language_detection_prompt"),
    ],
)
def test_a_promise_needs_the_hook_that_keeps_it(members: dict[str, Any], missing: str) -> None:
    with pytest.raises(TypeError, match=f"must write {missing} too"):
        make(**members)


@pytest.mark.parametrize(
    ("name", "override", "why"),
    [
        ("get_generation_prompts", classmethod(lambda cls, params: {}), "looks like the hook 'get_generation_prompt'"),
        ("validate_languages", classmethod(lambda cls, language: None), "looks like the hook 'validate_language'"),
        ("get_speech_to_text_config", lambda self, model_config, task_type: None, "the hook is a classmethod"),
        ("get_speech_to_text_config", classmethod(lambda cls, model_config: None), "positional"),
        ("validate_language", classmethod(lambda cls: None), "positional"),
        ("get_generation_prompt", classmethod(lambda cls: {}), "positional"),
        ("get_generation_prompt", classmethod(lambda cls, audio, tone: {}), "asks for tone"),
        ("post_process_output", classmethod(lambda cls, text, tokens: ""), "tokens"),
    ],
)
def test_a_hook_that_would_never_be_called_is_refused(name: str, override: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        make(**{name: override})


def test_the_older_guides_keywords_are_taken() -> None:
    def written(cls: Any, audio: Any, stt_config: Any, model_config: Any, language: Any, task_type: Any,
                request_prompt: Any, to_language: Any) -> Any:  # fmt: skip
        return locals()

    given = make(get_generation_prompt=classmethod(written)).get_generation_prompt(PARAMS)
    assert (given["language"], given["task_type"], given["request_prompt"], given["to_language"]) == (
        "en", "translate", "names", "de")  # fmt: skip
    assert given["audio"] is PARAMS.audio
    assert given["model_config"] is MODEL
    assert given["stt_config"] is PARAMS.stt_config
    some = make(get_generation_prompt=classmethod(lambda cls, *, audio, language, extra=None: (len(audio), language)))
    assert some.get_generation_prompt(PARAMS) == (3, "en")
    rest = make(get_generation_prompt=classmethod(lambda cls, audio, **rest: sorted(rest)))
    assert "to_language" in rest.get_generation_prompt(PARAMS)
    child = type("Child", (some,), {"get_generation_prompt": classmethod(lambda cls, params: params.language)})
    assert child.get_generation_prompt(PARAMS) == "en"


@pytest.mark.parametrize(
    ("given", "code"),
    [(None, None), ("en", "en"), (" EN ", "en"), ("English", "en"), ("german", "de"), ("de-AT", "de"), ("en_US", "en"),
     ("yue", "yue"), ("pt-br", "pt-BR"), ("Brazilian", "pt-BR")],
)  # fmt: skip
def test_languages_are_taken_by_code_name_and_region(given: Any, code: Any) -> None:
    assert make().validate_language(given) == code


@pytest.mark.parametrize("given", ["xx", "", "klingon", "e", 5, "x" * 10_000, "-en"])
def test_unknown_languages_are_refused_with_those_there_are(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="en, de, yue, pt-BR") as caught:
        make().validate_language(given)
    assert (caught.value.code, caught.value.param) == ("unsupported_language", "language")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "fields",
    [
        {"sample_rate": 0},
        {"max_audio_clip_s": 0},
        {"overlap_chunk_second": 0},
        {"overlap_chunk_second": 30},
        {"min_energy_split_window_size": 0},
        {"min_energy_split_window_size": 16_001},
    ],
)
def test_ways_to_cut_clips_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SpeechToTextConfig(**fields)


def test_clips_are_cut_where_there_is_a_longest_and_a_window() -> None:
    assert SpeechToTextConfig().allow_audio_chunking
    assert not SpeechToTextConfig(min_energy_split_window_size=None).allow_audio_chunking
    assert not SpeechToTextConfig(max_audio_clip_s=None).allow_audio_chunking


@pytest.mark.parametrize("temperatures", [(0.0, 0.5), (0.5, 0.2), (0.5, 0.5), (-1.0,)])
def test_temperatures_rise_from_above_zero(temperatures: Any) -> None:
    with pytest.raises(ValueError):
        DecodingFallback(temperatures=temperatures)


def test_a_pair_of_a_wave_and_a_rate_is_one_clip() -> None:
    wave = np.zeros(3)
    assert is_clip((wave, 16_000))
    assert not is_clip((wave, wave))
    assert not is_clip([wave, 16_000])


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, sdk.transcription; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""How Whisper transcribes: prompts, rules of time stamps, languages, segments; against transformers' own where it has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_whisper.languages import LANGUAGES
from engine_plugin_whisper.rules import Suppressed, TimestampRules
from engine_plugin_whisper.transcription import WhisperTranscription
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from sdk.errors import InvalidRequestError
from sdk.speech import SpeechModel, SpeechOutput, SpeechToTextConfig, SpeechToTextParams

from .conftest import RATE, Clip

STT = SpeechToTextConfig(RATE, 2.0)


@pytest.fixture(scope="module")
def speech_model(folder: Path, processor: Any) -> SpeechModel:
    """The checkpoint as the hooks see it."""
    info = processor.info
    return SpeechModel(str(folder), info.get_hf_config(), info.get_tokenizer(), 256, info.get_hf_processor)


@pytest.fixture(scope="module")
def asked(speech_model: SpeechModel, clip: Clip) -> Any:
    """What a caller may ask of a clip."""

    def make(**wishes: Any) -> SpeechToTextParams:
        return SpeechToTextParams(clip(), STT, speech_model, **{"language": "en", **wishes})

    return make


def decoder_tokens(prompt: Any, model: SpeechModel) -> list[str]:
    """The decoder's prompt, as tokens."""
    found: list[str] = model.tokenizer.convert_ids_to_tokens(prompt["decoder_prompt"]["prompt_token_ids"])
    return found


def test_the_prompt_is_the_one_that_hf_generates_from(asked: Any, speech_model: SpeechModel) -> None:
    prompt = WhisperTranscription.get_generation_prompt
    assert decoder_tokens(prompt(asked()), speech_model) == [
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    translated = prompt(asked(language="de", task_type="translate", timestamps="segment"))
    assert decoder_tokens(translated, speech_model) == ["<|startoftranscript|>", "<|de|>", "<|translate|>"]
    before = prompt(asked(request_prompt=" Names: Frodo "))["decoder_prompt"]["prompt_token_ids"]
    expected = speech_model.tokenizer.get_prompt_ids("Names: Frodo").tolist()
    assert before[: len(expected)] == expected
    assert decoder_tokens(prompt(asked()), speech_model) == speech_model.tokenizer.convert_ids_to_tokens(
        before[len(expected) :]
    )


def test_of_a_long_prompt_the_end_is_kept(asked: Any, speech_model: SpeechModel) -> None:
    ids = WhisperTranscription.get_generation_prompt(asked(request_prompt="one two three " * 200))["decoder_prompt"][
        "prompt_token_ids"
    ]
    assert len(ids) == 1 + 127 + 4
    text = speech_model.tokenizer.decode(ids[1:-4])
    assert ("one two three " * 200).strip().endswith(text.strip())


# ---- rules of time stamps --------------------------------------------------------------------------------------------

VOCAB, END, NO_STAMPS = 40, 20, 27
STAMPS = NO_STAMPS + 1


@settings(max_examples=300, deadline=None)
@given(
    output=st.lists(st.one_of(st.integers(0, END), st.integers(STAMPS, VOCAB - 1)), max_size=8),
    most=st.one_of(st.none(), st.integers(0, 5)),
    seed=st.integers(0, 2**32),
)
def test_the_rules_of_time_stamps_equal_hf(output: list[int], most: int | None, seed: int) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    said = GenerationConfig(eos_token_id=END, no_timestamps_token_id=NO_STAMPS, max_initial_timestamp_index=most)
    theirs = WhisperTimeStampLogitsProcessor(said, begin_index=2)
    expected = theirs(torch.tensor([[1, 2, *output]]), logits[None].clone())[0]
    found = TimestampRules(NO_STAMPS, END, STAMPS, most)(output, logits.clone())
    assert torch.equal(found, expected)


def test_suppressed_tokens_never_come() -> None:
    rule = Suppressed([3, 4], [5])
    assert torch.isinf(rule([], torch.zeros(8))).nonzero().flatten().tolist() == [3, 4, 5]
    assert torch.isinf(rule([1], torch.zeros(8))).nonzero().flatten().tolist() == [3, 4]
    assert not torch.isinf(Suppressed()([], torch.zeros(8))).any()


def segments(speech_model: SpeechModel, asked: Any, said: str) -> list[tuple[float, float, str]]:
    """What is read from tokens."""
    ids = speech_model.tokenizer(said, add_special_tokens=False)["input_ids"]
    output = SpeechOutput(text="", token_ids=ids)
    found = WhisperTranscription.parse_segments(output, asked(timestamps="segment"))
    return [(s.start, s.end, s.text) for s in found]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("<|0.00|> a fox<|0.80|><|0.80|> a dog<|1.30|>", [(0.0, 0.8, " a fox"), (0.8, 1.3, " a dog")]),
        ("<|0.20|> a fox<|0.80|><|1.00|> a dog", [(0.2, 0.8, " a fox"), (1.0, 1.3, " a dog")]),
        ("<|0.00|> one<|1.00|>", [(0.0, 1.0, " one")]),
        ("<|0.00|>", []),
        ("", []),
        (" no stamp at all", [(0.0, 1.3, " no stamp at all")]),
        ("<|0.00|><|0.50|> late<|0.60|>", [(0.5, 0.6, " late")]),
    ],
)
def test_segments_are_read_from_the_time_stamps(
    speech_model: SpeechModel, asked: Any, said: str, expected: Any
) -> None:
    assert segments(speech_model, asked, said) == expected


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def english_only(speech_model: SpeechModel, tmp_path: Path) -> SpeechModel:
    """A checkpoint that says that it knows nothing but English."""
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": false}')
    processor = speech_model.load_processor
    return SpeechModel(
        str(tmp_path), speech_model.hf_config, speech_model.tokenizer, speech_model.max_model_len, processor
    )


def test_an_english_only_checkpoint_gets_no_language(english_only: SpeechModel, clip: Clip) -> None:
    params = SpeechToTextParams(clip(), STT, english_only, "en")
    assert decoder_tokens(WhisperTranscription.get_generation_prompt(params), english_only) == [
        "<|startoftranscript|>",
        "<|notimestamps|>",
    ]
    assert WhisperTranscription.get_language_token_ids(english_only) == {}
    for wishes, message in (
        ({"language": "de"}, "English alone, not German"),
        ({"task_type": "translate"}, "does not translate"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            WhisperTranscription.get_generation_prompt(SpeechToTextParams(clip(), STT, english_only, **wishes))


def test_nobody_said_the_language(caplog: pytest.LogCaptureFixture) -> None:
    assert WhisperTranscription.validate_language(None) == "en"
    assert "English is assumed" in caplog.text
    assert WhisperTranscription.validate_language("German") == "de"


def test_languages_that_the_checkpoint_has_not_are_refused(asked: Any) -> None:
    for wishes, message in (({"language": "fr"}, "this checkpoint has no French; it knows: en, zh, de, es"),
                            ({"task_type": "translate", "to_language": "de"}, "into English, not into German")):  # fmt: skip
        with pytest.raises(InvalidRequestError, match=message) as caught:
            WhisperTranscription.get_generation_prompt(asked(**wishes))
        assert caught.value.code == "unsupported_language"


def test_the_languages_are_hf_s() -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as THEIRS

    assert {code: name.lower() for code, name in LANGUAGES.items()} == THEIRS


def test_audio_counts_by_its_own_length(speech_model: SpeechModel) -> None:
    assert WhisperTranscription.get_num_audio_tokens(1.0, STT, speech_model) == 50
    assert WhisperTranscription.get_num_audio_tokens(0.001, STT, speech_model) == 1

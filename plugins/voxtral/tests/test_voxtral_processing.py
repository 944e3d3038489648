"""Prompts and windows, against transformers' own processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdk import Architecture
from sdk.errors import EngineError, InvalidConfigError, InvalidRequestError, MediaTooLargeError, PromptUpdateError
from sdk.testing.reference import load_processor, load_target

from .conftest import RATE, WINDOW, Clip, Processed, Request, Wave, as_wav, split

Records = list[Architecture]
ROWS = 25


def assert_equal(made: Any, expected: Processed) -> None:
    """Ids, windows and places of one prompt."""
    assert made.prompt_token_ids == expected["input_ids"][0].tolist()
    windows = [item.kwargs["input_features"].value for item in made.items]
    assert len(windows) == expected["input_ids"].eq(25).sum()
    if windows:
        assert torch.equal(torch.cat(windows), expected["input_features"])
    for item, clip in zip(made.items, windows):
        place = item.placeholder
        assert item.kwargs["num_windows"].value == len(clip)
        assert (place.length, place.num_embeds) == (1 + ROWS * len(clip), ROWS * len(clip))
        assert [made.prompt_token_ids[place.offset + i] for i in range(3)] == [25, 24, 24]


def test_a_chat_has_the_ids_and_windows_of_hf(processor: Any, hf_chat: Request, parts: list[str | Wave]) -> None:
    text, clips = split(parts)
    assert_equal(processor.apply(text, {"audio": clips}), hf_chat(parts))


@pytest.mark.parametrize("seconds", [1 / RATE, 1.3, 2.0, 7.9])
@pytest.mark.parametrize("language", [None, "en", "de"])
def test_a_transcription_request_has_the_ids_and_windows_of_hf(
    processor: Any, hf_transcription: Request, clip: Clip, seconds: float, language: str | None
) -> None:
    text = f"[INST][AUDIO][/INST]{'' if language is None else f'lang:{language}'}[TRANSCRIBE]"
    expected = hf_transcription(clip(seconds), language)
    assert_equal(processor.apply(text, {"audio": clip(seconds)}), expected)


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a system prompt": [{"role": "system", "content": "Be short. "}, {"role": "user", "content": " Hi? "}],
    "three turns": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.  "},
        {"role": "user", "content": ""},
    ],
    "texts in parts": [
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("a ", "", " b", "c")]},
        {"role": "assistant", "content": [{"type": "text", "text": t} for t in ("d ", "e ")]},
        {"role": "user", "content": "f"},
    ],
    "clips in two turns": [
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "audio"}, {"type": "text", "text": "y"}]},
        {"role": "assistant", "content": "I hear it."},
        {"role": "user", "content": [{"type": "audio"}, {"type": "audio"}]},
    ],
}


def with_clips(conversation: list[dict[str, Any]], clip: Clip) -> tuple[list[dict[str, Any]], list[Wave]]:
    """The conversation as HF takes it, and its clips."""
    waves: list[Wave] = []

    def filled(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "audio":
            return part
        waves.append(clip(0.4 + len(waves), len(waves)))
        return {"type": "audio", "base64": as_wav(waves[-1])}

    made = [
        {**message, "content": [filled(p) for p in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in conversation
    ]
    return made, waves


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_have_the_ids_of_hf(processor: Any, hf_chat: Request, clip: Clip, name: str) -> None:
    given, waves = with_clips(CONVERSATIONS[name], clip)
    tokenizer = processor.info.get_tokenizer()
    text = tokenizer.apply_chat_template(CONVERSATIONS[name], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert_equal(processor.apply(ids, {"audio": waves}), hf_chat(conversation=given))


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CLIP = {"type": "audio"}


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([USER, USER], "take turns, the user first; found user"),
        ([ANSWER], "take turns, the user first; found assistant"),
        ([USER, ANSWER], "the last message must be of the user"),
        ([USER, {"role": "system", "content": "c"}], "found system"),
        ([{"role": "system", "content": "c"}, {"role": "user", "content": [CLIP]}], "clips cannot follow a system"),
        ([USER, {"role": "assistant", "content": [CLIP]}, USER], "a message of the user, not of the assistant"),
        ([{"role": "user", "content": [{"type": "image"}]}], "made of text and clips, not of image"),
    ],
)
def test_conversations_that_the_model_does_not_know_are_refused(
    processor: Any, conversation: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        processor.info.get_tokenizer().apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)


def test_tools_are_refused_by_the_template(processor: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    with pytest.raises(Exception, match="declares no tools"):
        processor.info.get_tokenizer().apply_chat_template([USER], tools=[tool], tokenize=False)


def test_clips_that_the_caller_processed_are_taken(processor: Any, clip: Clip) -> None:
    text, waves = split([clip(1.0), "and", clip(3.0)])
    made = processor.apply(text, {"audio": waves})
    features = torch.cat([item.kwargs["input_features"].value for item in made.items])
    given = processor.apply(text, {"audio": {"input_features": features, "num_windows": torch.tensor([1, 2])}})
    assert given.prompt_token_ids == made.prompt_token_ids
    for one, other in zip(given.items, made.items):
        assert torch.equal(one.kwargs["input_features"].value, other.kwargs["input_features"].value)
    alone = processor.apply("[AUDIO][AUDIO][AUDIO]", {"audio": {"input_features": features}})
    assert [item.placeholder.num_embeds for item in alone.items] == [ROWS] * 3


def test_embeddings_are_taken_with_any_number_of_rows(processor: Any) -> None:
    made = processor.apply("a[AUDIO]b", {"audio": torch.zeros(7, 64)})
    assert made.items[0].placeholder.num_embeds == 7
    assert made.prompt_token_ids.count(24) == 7
    assert made.prompt_token_ids.count(25) == 1


WINDOWS = torch.zeros(3, 80, 200)
BAD: dict[str, tuple[Any, type[EngineError], str]] = {
    "a clip too long": (np.zeros(20 * WINDOW + 1, np.float32), MediaTooLargeError, "positions hold 40 s; cut it"),
    "another rate": ((np.zeros(99, np.float32), 8000), InvalidRequestError, "8000 samples a second"),
    "no windows": ({"num_windows": torch.tensor([1])}, InvalidRequestError, "float tensor input_features"),
    "windows of integers": ({"input_features": WINDOWS.long()}, InvalidRequestError, "float tensor input_features"),
    "one window alone": ({"input_features": WINDOWS[0]}, InvalidRequestError, r"\(windows, mel bins, frames\)"),
    "no window": ({"input_features": WINDOWS[:0]}, InvalidRequestError, "float tensor input_features"),
    "other mel bins": ({"input_features": WINDOWS[:, :40]}, InvalidRequestError, r"must be \(80, 200\).*\(40, 200\)"),
    "other numbers": (
        {"input_features": WINDOWS, "num_windows": torch.tensor([1, 1])},
        InvalidRequestError,
        r"says \[1, 1\], but there are 3 windows",
    ),
    "none of them": (
        {"input_features": WINDOWS, "num_windows": torch.tensor([0, 3])},
        InvalidRequestError,
        r"says \[0, 3\]",
    ),
    "numbers that are none": (
        {"input_features": WINDOWS, "num_windows": torch.tensor([1.0, 2.0])},
        InvalidRequestError,
        "num_windows is an integer tensor",
    ),
    "something besides": ({"input_features": WINDOWS, "mask": WINDOWS}, InvalidRequestError, "has mask"),
}


@pytest.mark.parametrize(("given", "error", "message"), BAD.values(), ids=BAD)
def test_what_no_encoder_can_take_is_refused(
    processor: Any, given: Any, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        processor.apply("[AUDIO]" * 3, {"audio": given})


def test_an_audio_token_without_a_clip_is_refused(processor: Any, clip: Clip) -> None:
    with pytest.raises(PromptUpdateError, match="1 placeholder tokens more than media items"):
        processor.apply("[AUDIO] and [AUDIO]", {"audio": [clip()]})
    with pytest.raises(PromptUpdateError, match="a place for 0"):
        processor.apply("nothing", {"audio": [clip()]})


def test_a_feature_extractor_that_does_not_fit_the_encoder_is_refused(
    folder: Path, tmp_path: Path, records: Records
) -> None:
    import shutil

    from transformers import WhisperFeatureExtractor

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    WhisperFeatureExtractor(feature_size=80, chunk_length=3).save_pretrained(tmp_path)
    with pytest.raises(InvalidConfigError, match="80 mel bins and 300 frames, but the encoder takes 80 and 200"):
        load_processor(tmp_path, records).info.get_hf_processor()
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidConfigError, match=r"feature extractor of .* cannot be loaded"):
        load_processor(tmp_path, records).info.get_hf_processor()


def test_clips_have_no_other_modality_beside_them(records: Records) -> None:
    with pytest.raises(ValueError, match="takes clips, not image"):
        load_target(records[0].model).get_placeholder_str("image", 1)

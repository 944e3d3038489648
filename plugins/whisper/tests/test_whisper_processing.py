"""Clips on their way to the encoder: HF's features, one clip a prompt, and errors that say what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

from sdk import Architecture
from sdk.errors import InvalidRequestError, MediaTooLargeError, MediaUnsupportedError
from sdk.testing.reference import load_processor

from .conftest import RATE, Clip


@pytest.mark.parametrize("seconds", [0.0001, 0.5, 1.3, 1.9999, 2.0])
def test_log_mel_equals_hf(processor: Any, folder: Path, clip: Clip, seconds: float) -> None:
    wave = clip(seconds=seconds)
    made = processor.apply([1, 2], {"audio": wave})
    expected = WhisperFeatureExtractor.from_pretrained(folder)(wave, sampling_rate=RATE, return_tensors="pt")
    found = made.encoder_item.kwargs["input_features"].value
    assert (found - expected["input_features"][0]).abs().max() <= 1e-5
    assert made.prompt_token_ids == [1, 2]
    assert made.items == ()


@pytest.mark.parametrize(("mels", "seconds"), [(80, 30), (128, 30), (16, 1)])
def test_log_mel_of_every_published_size_equals_hf(
    folder: Path, tmp_path: Path, records: list[Architecture], clip: Clip, mels: int, seconds: int
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds)
    WhisperProcessor(extractor, WhisperTokenizer.from_pretrained(folder)).save_pretrained(tmp_path)
    config = WhisperConfig.from_pretrained(folder)
    config.num_mel_bins, config.max_source_positions = mels, 50 * seconds
    config.save_pretrained(tmp_path)
    wave = clip(seconds=seconds * 0.9)
    made = load_processor(tmp_path, records).apply([1], {"audio": wave}).encoder_item.kwargs["input_features"].value
    expected = extractor(wave, sampling_rate=RATE, return_tensors="pt")["input_features"][0]
    assert made.shape == (mels, 100 * seconds)
    assert (made - expected).abs().max() <= 1e-5


def test_the_decoder_begins_by_itself_and_its_text_gets_no_special_tokens(processor: Any, clip: Clip) -> None:
    tokenizer = processor.info.get_tokenizer()
    assert processor.apply("", {"audio": clip()}).prompt_token_ids == [
        processor.info.get_hf_config().decoder_start_token_id
    ]
    text = "<|startoftranscript|><|de|><|transcribe|><|notimestamps|> Der braune Fuchs"
    found = processor.apply(text, {"audio": clip()}).prompt_token_ids
    assert tokenizer.convert_ids_to_tokens(found[:4]) == [
        "<|startoftranscript|>",
        "<|de|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    assert found == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_features_that_the_caller_made_are_taken(processor: Any, clip: Clip) -> None:
    made = processor.apply([1], {"audio": clip()}).encoder_item.kwargs["input_features"].value
    given = processor.apply([1], {"audio": {"input_features": made[None]}})
    assert torch.equal(given.encoder_item.kwargs["input_features"].value, made)


BAD = {
    "too long": (
        {"audio": (np.zeros(32_001, np.float32), RATE)},
        MediaTooLargeError,
        "hears 2 s at once; LLM.transcribe",
    ),
    "none": ({}, InvalidRequestError, "exactly one audio"),
    "two": ({"audio": [np.zeros(99, np.float32)] * 2}, InvalidRequestError, "at most 1"),
    "embeddings": ({"audio": torch.zeros(1, 100, 32)}, InvalidRequestError, "exactly one audio, raw or processed"),
    "features of another shape": (
        {"audio": {"input_features": torch.zeros(1, 80, 3000)}},
        InvalidRequestError,
        r"must be \(80, 200\), mel bins and frames, not \(80, 3000\)",
    ),
    "a picture": ({"image": np.zeros((4, 4, 3), np.uint8)}, MediaUnsupportedError, "takes no image"),
    "no sound": ({"audio": np.zeros(0, np.float32)}, InvalidRequestError, "one channel of floats"),
}


@pytest.mark.parametrize(("data", "error", "message"), BAD.values(), ids=BAD)
def test_what_no_encoder_can_take_is_refused(processor: Any, data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        processor.apply("a", data)

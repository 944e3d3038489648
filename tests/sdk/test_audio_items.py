"""Clips among a prompt's media: one channel, floats, at the model's rate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sdk.errors import InvalidRequestError
from sdk.multimodal import (
    AudioProcessorItems,
    BaseDummyInputsBuilder,
    BaseProcessingInfo,
    EmbeddingItems,
    ImageSize,
    ProcessedItems,
)
from sdk.multimodal.items import parse_items

WAVE = np.linspace(-1, 1, 50, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "rates"),
    [
        (WAVE, [None]),
        ((WAVE, 16_000), [16_000]),
        ([WAVE, (WAVE, 8_000)], [None, 8_000]),
        ((WAVE, WAVE), [None, None]),
        (torch.from_numpy(WAVE), [None]),
        ((WAVE.astype(np.float64), 16_000), [16_000]),
        ([WAVE[::-1]], [None]),
    ],
)
def test_clips_with_and_without_their_rate(value: Any, rates: Any) -> None:
    items = parse_items("audio", value)
    assert isinstance(items, AudioProcessorItems)
    assert items.rates == rates
    assert items.get_count() == len(rates)
    for i in range(len(rates)):
        assert items.get_audio_length(i) == 50
        assert items.get(i).dtype == np.float32
        assert items.get(i).flags.c_contiguous


@pytest.mark.parametrize(
    "value",
    ["a.wav", b"", [], np.zeros((2, 50), np.float32), np.zeros(50, np.int16), np.zeros(0, np.float32), [[0.1]],
     np.array([0.0, np.nan], np.float32), (WAVE[None], 16_000), None],
)  # fmt: skip
def test_what_is_no_clip(value: Any) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"audio 0: a clip is one channel of floats, \(samples,\), not"
    ) as caught:
        parse_items("audio", [value])
    assert caught.value.param == "multi_modal_data.audio"


def test_clips_of_another_rate_are_refused_where_nobody_resamples() -> None:
    items = parse_items("audio", [(WAVE, 16_000), WAVE, (WAVE, 44_100)])
    assert isinstance(items, AudioProcessorItems)
    with pytest.raises(InvalidRequestError, match="audio 2 has 44100 samples a second, but this model hears at 16000"):
        items.check_rates(16_000)


def test_embeddings_and_processed_clips_are_told_apart() -> None:
    assert isinstance(parse_items("audio", torch.zeros(3, 8)), EmbeddingItems)
    assert isinstance(parse_items("audio", [torch.zeros(3, 8)]), EmbeddingItems)
    assert isinstance(parse_items("audio", {"input_features": torch.zeros(1, 80, 30)}), ProcessedItems)


def test_the_rate_is_the_feature_extractors() -> None:
    class Info(BaseProcessingInfo):
        def get_hf_processor(self) -> Any:
            return SimpleNamespace(feature_extractor=SimpleNamespace(sampling_rate=24_000))

    assert Info(SimpleNamespace()).get_audio_sample_rate() == 24_000  # type: ignore[arg-type]


def test_dummy_media_by_default_are_pictures_and_nothing_else() -> None:
    class Sees(BaseProcessingInfo):
        size: Any = ImageSize(width=5, height=3)

        def get_image_size_with_most_features(self) -> ImageSize:
            return self.size  # type: ignore[no-any-return]

    builder = BaseDummyInputsBuilder[Any](Sees(SimpleNamespace()))  # type: ignore[arg-type]
    (picture, _) = builder.get_dummy_mm_data(512, {"image": 2})["image"]
    assert picture.size == (5, 3)
    with pytest.raises(NotImplementedError, match=r"has no get_dummy_mm_data; the default .* not of 'audio', 'image'"):
        builder.get_dummy_mm_data(512, {"image": 1, "audio": 1})
    builder.info.size = 5
    with pytest.raises(TypeError, match=r"must return ImageSize\(width=…, height=…\), not 5"):
        builder.get_dummy_mm_data(512, {"image": 1})


def test_dummy_clips_are_clips() -> None:
    made = BaseDummyInputsBuilder[Any](SimpleNamespace())._get_dummy_audios(length=480, num_audios=3)
    items = parse_items("audio", made)
    assert items.get_count() == 3
    assert isinstance(items, AudioProcessorItems)
    assert items.get_audio_length(2) == 480

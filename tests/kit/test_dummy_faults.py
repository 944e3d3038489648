"""Dummy inputs that are not the worst case are caught at level 3, with the smallest item that shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from engine_plugin_llava.processing import LlavaDummyInputsBuilder, LlavaMultiModalProcessor, LlavaProcessingInfo

from sdk.multimodal import ImageSize, PromptReplacement
from sdk.testing import LawResult, Suite

from .conftest import LLAVA, suite_with

Planted = Callable[..., LawResult]
LARGEST = 64
"""Pixels a side beyond which a picture is made smaller."""


def patches(width: int, height: int) -> int:
    """One token for each 8 by 8 pixels begun."""
    return math.ceil(min(width, LARGEST) / 8) * math.ceil(min(height, LARGEST) / 8)


class ByArea(LlavaMultiModalProcessor):
    """Larger pictures take more tokens."""

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        token = self.info.get_hf_config().image_token_id

        def tokens(index: int) -> list[int]:
            return [token] * patches(*mm_items["image"].get_image_size(index))

        return [PromptReplacement(modality="image", target=[token], replacement=tokens)]


class AreaInfo(LlavaProcessingInfo):
    """What is true of it."""

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return patches(image_width, image_height)

    def get_image_size_with_most_features(self) -> ImageSize:
        return ImageSize(LARGEST, LARGEST)


class RoundsDown(AreaInfo):
    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return (min(image_width, LARGEST) // 8) * (min(image_height, LARGEST) // 8)


class SaysNothing(LlavaProcessingInfo):
    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {}


class SmallDummy(LlavaDummyInputsBuilder):
    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return {"image": self._get_dummy_images(width=16, height=16, num_images=mm_counts["image"])}


class NoPlaceholder(LlavaDummyInputsBuilder):
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "a picture"


class AlwaysOne(LlavaDummyInputsBuilder):
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return super().get_dummy_text({"image": 1})

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return super().get_dummy_mm_data(seq_len, {"image": 1})


class CropsOneOfMany(ByArea):
    """Two pictures beside each other take more than each alone: what a promise for one item does not cover."""

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        (update,) = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        more = [update.target[0]] * (mm_items.get_count("image") - 1)
        return [PromptReplacement("image", update.target, lambda index: [*update.replacement(index), *more])]


def test_a_processor_that_counts_by_size_and_says_so_breaks_no_law() -> None:
    with suite_with(LLAVA, "processor", ByArea, info=AreaInfo) as suite:
        found = [suite.check(law) for law in ("L3.dummy-processed", "L3.dummy-tokens", "L3.worst-case", "L3.analytic")]
    assert [result.explain() for result in found if result.status != "passed"] == []
    assert found[1].detail == "64 tokens for image"
    assert found[2].detail.startswith("64 tokens at most, for an image ")


@pytest.mark.parametrize(
    ("law_id", "parts", "what", "smallest", "cause"),
    [
        (
            "L3.worst-case",
            {"processor": ByArea},
            "an image 41×17 takes 18 tokens, get_mm_max_tokens_per_item promises 16",
            "an image 41×17; the worst of those tried is an image",
            "get_image_size_with_most_features",
        ),
        (
            "L3.worst-case",
            {"processor": ByArea, "info": AreaInfo, "dummy_inputs": SmallDummy},
            "takes 5 tokens, the dummy has 4",
            "an image 1×33; the worst of those tried is an image",
            "memory would be reserved for less than a request can bring",
        ),
        (
            "L3.worst-case",
            {"processor": CropsOneOfMany, "info": AreaInfo},
            "2 of them in a prompt, takes 65 tokens, get_mm_max_tokens_per_item promises 64",
            "an image 57×57; the worst",
            "the dummy builder",
        ),
        (
            "L3.dummy-tokens",
            {"processor": ByArea, "info": AreaInfo, "dummy_inputs": SmallDummy},
            "dummy image 0 takes 4 tokens (4 of them with embeddings), get_mm_max_tokens_per_item promises 64",
            "mm_counts {'image': 1}",
            "does not build the largest item",
        ),
        ("L3.dummy-tokens", {"info": SaysNothing}, "says nothing about image", "mm_counts", "for each modality"),
        (
            "L3.analytic",
            {"processor": ByArea, "info": RoundsDown, "dummy_inputs": LlavaDummyInputsBuilder},
            "an image 1×1 gives 1 rows of embeddings, get_num_image_tokens says 0",
            "an image 1×1",
            "rounds, crops or fits",
        ),
        (
            "L3.dummy-processed",
            {"dummy_inputs": NoPlaceholder},
            "the dummy inputs are not processed",
            "mm_counts {'image': 1}",
            "get_dummy_text writes a placeholder an item",
        ),
        (
            "L3.dummy-processed",
            {"dummy_inputs": AlwaysOne},
            "the dummy inputs for 2 image become 1 image items",
            "mm_counts {'image': 2}",
            "as many items of each modality",
        ),
    ],
)
def test_a_wrong_worst_case_is_shown_with_the_smallest_item(
    law_id: str, parts: dict[str, Any], what: str, smallest: str, cause: str
) -> None:
    (part, value), *others = parts.items()
    with suite_with(LLAVA, part, value, **dict(others)) as suite:
        result = suite.check(law_id)
    assert result.status == "failed"
    assert what in result.detail
    assert result.smallest.startswith(smallest)
    assert cause in result.cause


def test_pictures_that_the_processor_refuses_are_counted() -> None:
    class Refuses(ByArea):
        def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
            if any(picture.size[0] < 3 for picture in mm_data["images"]):
                raise ValueError("too narrow")
            return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)

    with suite_with(LLAVA, "processor", Refuses, info=AreaInfo) as suite:
        result = suite.check("L3.worst-case")
    assert result.status == "passed"
    assert "of them refused, such as an image " in result.detail


def test_a_model_without_media_has_no_worst_case() -> None:
    with Suite("LlamaForCausalLM") as suite:
        result = suite.check("L3.worst-case")
    assert (result.status, result.detail) == ("skipped", "LlamaForCausalLM takes text alone")

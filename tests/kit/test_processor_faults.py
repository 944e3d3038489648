"""Faults in a processor are caught at level 2, with the smallest prompt that shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_plugin_llava.model import LlavaForConditionalGeneration
from engine_plugin_llava.processing import LlavaMultiModalProcessor, LlavaProcessingInfo
from transformers import LlavaProcessor

from sdk.multimodal import MultiModalFieldConfig, PromptReplacement
from sdk.testing import LawResult

from .conftest import LLAVA

Planted = Callable[..., LawResult]


class OneTooMany(LlavaMultiModalProcessor):
    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        (update,) = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        return [PromptReplacement("image", update.target, lambda i: [*update.replacement(i).full, *update.target])]


class ChangesPictures(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        for picture in mm_data["images"]:
            picture.thumbnail((16, 16))
        return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)


class DropsTheLast(LlavaMultiModalProcessor):
    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        sizes = [1] * max(1, len(hf_inputs["pixel_values"]) - 1)
        return {"pixel_values": MultiModalFieldConfig.flat_from_sizes("image", sizes)}


class Centres(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        out = super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)
        return {**out, "pixel_values": out["pixel_values"] - out["pixel_values"].mean()}


class Doubles(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        out = super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)
        return {**out, "pixel_values": out["pixel_values"] * 2}


class Dithers(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        out = super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)
        return {**out, "pixel_values": out["pixel_values"] + torch.rand(())}


class AddsAToken(LlavaMultiModalProcessor):
    def _apply_hf_processor_tokens_only(self, prompt_tokens: list[int]) -> list[int]:
        return [*prompt_tokens, 7]


class AddsATokenToMedia(LlavaMultiModalProcessor):
    def _apply_hf_processor_tokens_only(self, prompt_tokens: list[int], mm_counts: Any = None) -> list[int]:
        return [*prompt_tokens, 7] if mm_counts.get("image") else prompt_tokens


class ForgetsToReturn(LlavaMultiModalProcessor):
    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)


class ReturnsOne(LlavaMultiModalProcessor):
    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        return super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)[0]


class NamesModalities(LlavaMultiModalProcessor):
    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        return dict.fromkeys(hf_inputs, "image")


class Raises(LlavaMultiModalProcessor):
    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        return {"pixel_values": hf_inputs["pixels"]}


class Mends(LlavaProcessingInfo):
    def get_hf_processor(self) -> Any:
        processor = super().get_hf_processor()
        processor.mended = True
        return processor


@pytest.mark.parametrize(
    ("law_id", "part", "value", "what", "smallest", "cause"),
    [
        (
            "L2.ids-equal-hf",
            "processor",
            OneTooMany,
            "17 placeholder tokens where HF's processor writes 16",
            "'<image>' with",
            "_get_prompt_updates",
        ),
        ("L2.placeholder-rows", "processor", OneTooMany, "gives it 16 rows", "'<image>' with", "_get_prompt_updates"),
        ("L2.not-mutated", "processor", ChangesPictures, "the media changed", "'<image>' with", "work on a copy"),
        (
            "L2.items-independent",
            "processor",
            DropsTheLast,
            "2 image items went in and 1 came out",
            "'<image><image>' with",
            "the fields",
        ),
        (
            "L2.items-independent",
            "processor",
            Centres,
            "pixel_values of item 0 differs",
            "'<image><image>' with",
            "padding or resizing",
        ),
        (
            "L2.tensors-equal-hf",
            "processor",
            Doubles,
            "pixel_values of item 0 is not",
            "'<image>' with",
            "_call_hf_processor",
        ),
        ("L2.repeatable", "processor", Dithers, "pixel_values of item 0 differs", "'<image>' with", "randomness"),
        (
            "L2.ids-equal-hf",
            "processor",
            AddsAToken,
            "the text around the media differs",
            "''",
            "_apply_hf_processor_tokens_only",
        ),
        (
            "L2.ids-equal-hf",
            "processor",
            AddsATokenToMedia,
            "the text around the media differs",
            "'<image>' with",
            "_apply_hf_processor_tokens_only",
        ),
        (
            "L2.text-ids",
            "processor",
            AddsAToken,
            "where HF's tokenizer gives",
            "'a'",
            "_apply_hf_processor_tokens_only",
        ),
    ],
)
def test_a_processor_that_breaks_a_law_is_shown_the_smallest_prompt(
    planted: Planted, law_id: str, part: str, value: type, what: str, smallest: str, cause: str
) -> None:
    result = planted(law_id, LLAVA, part, value)
    assert result.status == "failed"
    assert what in result.detail
    assert result.smallest.startswith(smallest)
    assert cause in result.cause


@pytest.mark.parametrize(
    ("value", "what", "cause"),
    [
        (ForgetsToReturn, "_get_prompt_updates: TypeError: it must return a list of PromptReplacement", ""),
        (ReturnsOne, "not one PromptReplacement: put it into a list", ""),
        (NamesModalities, "_get_mm_fields_config: TypeError: it must return a mapping", ""),
        (Raises, "_get_mm_fields_config: KeyError: 'pixels'", "raised below"),
    ],
)
def test_a_hook_that_fails_is_told_by_its_own_fault_and_not_by_what_the_law_suspects(
    planted: Planted, value: type, what: str, cause: str
) -> None:
    result = planted("L2.not-mutated", LLAVA, "processor", value)
    assert result.status == "failed"
    assert what in result.detail
    assert result.cause.startswith(cause)
    assert "work on a copy" not in result.cause
    assert result.cause.endswith("in _get_mm_fields_config") or not cause


def test_a_model_without_its_processor_is_told_that_it_takes_media(planted: Planted) -> None:
    model = LlavaForConditionalGeneration
    result = planted("L1.parts", LLAVA, "model", model, tiny="engine_plugin_llava.tiny:llava")
    assert result.status == "failed"
    assert "names no processor, but its model implements SupportsMultiModal" in result.detail


def test_where_hfs_processor_fails_it_is_compared_with_as_the_plugin_mends_it_and_that_is_said(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = LlavaProcessor.__call__

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(self, "mended", False):
            raise TypeError("broken upstream")
        return works(self, *args, **kwargs)

    monkeypatch.setattr(LlavaProcessor, "__call__", broken)
    result = planted("L2.ids-equal-hf", LLAVA, "info", Mends)
    assert result.status == "passed", result.explain()
    assert "HF's processor as the plugin mends it (TypeError: broken upstream)" in result.detail
    assert planted("L2.ids-equal-hf", LLAVA, "info", LlavaProcessingInfo).status == "failed"

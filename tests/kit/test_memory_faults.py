"""What a plugin keeps of each request is caught at level 5; what it keeps once is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_plugin_llama.model import LlamaForCausalLM
from engine_plugin_llava.model import LlavaForConditionalGeneration
from engine_plugin_llava.processing import LlavaMultiModalProcessor
from torch import Tensor

from sdk.testing import LawResult

from .conftest import LLAMA, LLAVA

Planted = Callable[..., LawResult]


class KeepsEmbeddings(LlavaForConditionalGeneration):
    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        features = super().get_multimodal_embeddings(pixel_values)
        self.__dict__.setdefault("seen", []).append(features)
        return features


class KeepsPictures(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
        self.__dict__.setdefault("seen", []).append([np.asarray(item) + 0.5 for item in mm_data.get("images", ())])
        return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)


class KeepsLengths(LlamaForCausalLM):
    """Small, bounded and made once: what a well-made plugin may do."""

    def get_input_embeddings(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        self.__dict__.setdefault("seen", {})[len(input_ids)] = input_ids
        return super().get_input_embeddings(input_ids, **kwargs)


@pytest.mark.parametrize(
    ("part", "value", "what"),
    [("model", KeepsEmbeddings, "float32"), ("processor", KeepsPictures, "in Python or numpy")],
)
def test_R076_a_plugin_that_keeps_something_of_each_request_is_caught(
    planted: Planted, part: str, value: type, what: str
) -> None:
    result = planted("L5.memory", LLAVA, part, value)
    assert result.status == "failed", result.explain()
    assert what in result.detail
    assert "an image" in result.smallest
    assert "grows with each call" in result.cause


def test_R076_what_is_kept_once_is_no_leak(planted: Planted) -> None:
    assert planted("L5.memory", LLAMA, "model", KeepsLengths).status == "passed"

"""Answers that depend on more than their prompt are caught at level 5: faults of models, and of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llama.model import LlamaForCausalLM
from engine_plugin_llava.model import LlavaForConditionalGeneration
from torch import Tensor

from core.runtime import CoreRuntime
from sdk.layers import SelfAttention
from sdk.testing import LawResult, Suite
from sdk.testing.runtime import DEFAULT, Completion, Prompt, Settings

from .conftest import LLAMA, LLAVA
from .test_model_faults import CallsTheReference, OtherAttention, OwnPositions

Planted = Callable[..., LawResult]


class RestartsPositions(LlamaForCausalLM):
    """Takes what it is given for a prompt from its beginning."""

    def forward(self, input_ids: Any, positions: Tensor, *rest: Any, **named: Any) -> Tensor:
        positions = positions - positions.min() if len(positions) > 1 else positions
        return super().forward(input_ids, positions, *rest, **named)


class AttendsOverNeighbours(OtherAttention):
    """Computes prompts by a function over all tokens of the step, and decodes by the layer."""

    class attention(SelfAttention):
        def forward(self, positions: Tensor, x: Tensor) -> Tensor:
            q, k, v = self.qkv_proj(x)
            out = self.attn(q, k, v, positions)
            if len(x) > 1 and positions[0] == 0:
                out = self.attn.reference(q, k, v, positions)
            return self.o_proj(out)


class RemembersTheStart(LlamaForCausalLM):
    """Keeps something of the last sequence that began outside the pages."""

    def forward(self, input_ids: Any, positions: Tensor, *rest: Any, **named: Any) -> Tensor:
        if positions[0] == 0:
            self.start = self.model.embed_tokens(input_ids[:1])
        return super().forward(input_ids, positions, *rest, **named) + self.start


class CentresPictures(LlavaForConditionalGeneration):
    """Its tower depends on what shares the batch."""

    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        features = super().get_multimodal_embeddings(pixel_values)
        return features - features.mean(dim=0) if len(features) > 2 else features


class BlindTower(LlavaForConditionalGeneration):
    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        return torch.zeros_like(super().get_multimodal_embeddings(pixel_values))


class KeepsByShape(LlavaForConditionalGeneration):
    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        features = super().get_multimodal_embeddings(pixel_values)
        self.kept = getattr(self, "kept", {})
        first = self.kept.setdefault(features.shape[1:], features[0])
        return first.expand(features.shape)


@pytest.mark.parametrize(
    ("law_id", "architecture", "model", "what", "smallest", "cause"),
    [
        (
            "L5.paged",
            LLAMA,
            OwnPositions,
            "from the model by itself",
            "one token",
            "positions that forward makes itself",
        ),
        ("L5.paged", LLAMA, CallsTheReference, "from the model by itself", "one token", "forward"),
        ("L5.chunks", LLAMA, RestartsPositions, "in chunks of 64", "66 tokens", "positions that it makes itself"),
        ("L5.batch", LLAMA, AttendsOverNeighbours, " others", "one token", "sequences lie end to end"),
        ("L5.batch", LLAVA, CentresPictures, "within ", "'<image>' with", "mixes the items of a batch"),
        ("L5.prefix", LLAMA, RemembersTheStart, "asked again after others", "37 tokens", "a state outside the pages"),
        ("L5.items", LLAVA, BlindTower, "two different image items have the same answer", "'USER:", "do not reach"),
        ("L5.items", LLAVA, KeepsByShape, "two different image items have the same answer", "'USER:", "kept by shape"),
    ],
)
def test_R077_an_answer_that_depends_on_more_than_its_prompt_is_caught(
    planted: Planted, law_id: str, architecture: str, model: type, what: str, smallest: str, cause: str
) -> None:
    result = planted(law_id, architecture, "model", model)
    assert result.status == "failed", result.explain()
    assert what in result.detail
    assert result.smallest.startswith(smallest)
    assert cause in result.cause


class Tampered(CoreRuntime):
    """This engine, with a fault in the answers that it gives under some settings.

    Args:
        fault: From the settings, and the answers that are due, to the answers that are given.
    """

    def __init__(self, fault: Callable[[Settings, list[Completion]], list[Completion]]) -> None:
        super().__init__()
        self.fault = fault

    def open(self, folder: Path, settings: Settings = DEFAULT) -> Any:
        opened, fault = super().open(folder, settings), self.fault
        generate = opened.generate

        def faulty(prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
            return fault(settings, generate(prompts, max_tokens))

        opened.generate = faulty  # type: ignore[method-assign]
        return opened


def off(completion: Completion) -> Completion:
    """An answer whose logprobs are a little off."""
    return replace(completion, logprobs=tuple(x - 0.001 for x in completion.logprobs))


def pages_of_three(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [off(c) for c in due] if settings.page_size == 3 else due


def forgets_what_it_preempts(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [off(c) if c.preemptions else c for c in due]


def never_preempts(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [replace(c, preemptions=0) for c in due]


def serves_stale_pages(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [off(c) if c.cached_tokens else c for c in due]


def shares_nothing(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [replace(c, cached_tokens=0) for c in due]


def shares_across_pictures(settings: Settings, due: list[Completion]) -> list[Completion]:
    return [replace(c, cached_tokens=40) for c in due] if settings.caching else due


@pytest.mark.parametrize(
    ("law_id", "architecture", "fault", "what", "cause"),
    [
        (
            "L5.pages",
            LLAMA,
            pages_of_three,
            "logprobs differ by up to 0.001, first at token 0",
            "paged attention with this",
        ),
        ("L5.preemption", LLAMA, forgets_what_it_preempts, "after it lost its place", "computed anew"),
        ("L5.preemption", LLAMA, never_preempts, "no sequence lost its place", "the engine"),
        ("L5.prefix", LLAMA, serves_stale_pages, "when it is asked again", "capabilities say prefix_caching=False"),
        ("L5.prefix", LLAMA, shares_nothing, "none of 37 tokens came from pages at hand", "the engine"),
        ("L5.items", LLAVA, shares_across_pictures, "40 tokens come from the pages of another image", "key of a page"),
    ],
)
def test_an_engine_whose_answers_depend_on_its_settings_is_caught(
    law_id: str, architecture: str, fault: Any, what: str, cause: str
) -> None:
    with Suite(architecture, Tampered(fault)) as suite:
        result = suite.check(law_id)
    assert result.status == "failed", result.explain()
    assert what in result.detail
    assert cause in result.cause


def test_what_does_not_apply_says_why() -> None:
    with Suite(LLAMA) as suite:
        assert suite.check("L5.items").detail == "LlamaForCausalLM takes text alone"
    with Suite("CLIPVisionModel") as suite:
        assert suite.check("L5.paged").detail == "CLIPVisionModel is a component, not a model"

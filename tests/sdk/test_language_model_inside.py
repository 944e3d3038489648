"""A model with a language model inside embeds, runs and makes logits by it, where it says nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdk

CTX: Any = SimpleNamespace(hf_config=None)
TOKENS, POSITIONS = torch.tensor([1, 2, 3]), torch.arange(3)


class Inner(sdk.Model):
    """A table, whose states are the embeddings plus the positions."""

    def __init__(self) -> None:
        super().__init__(ctx=CTX)
        self.table = torch.arange(8.0).unflatten(0, (4, 2))

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        return self.table[input_ids]

    def forward(
        self, input_ids: Tensor | None, positions: Tensor, inputs_embeds: Tensor | None = None, *, plus: float = 0.0
    ) -> Tensor:
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.get_input_embeddings(input_ids)
        return inputs_embeds + positions[:, None] + plus

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return hidden_states @ self.table.T


class Outer(sdk.Model, sdk.SupportsMultiModal):
    def __init__(self) -> None:
        super().__init__(ctx=CTX)
        self.language_model = Inner()

    def get_language_model(self) -> nn.Module:
        return self.language_model


def test_text_goes_through_it() -> None:
    model = Outer()
    states = model(TOKENS, POSITIONS)
    assert torch.equal(states, model.language_model(TOKENS, POSITIONS))
    assert torch.equal(model.compute_logits(states), model.language_model.compute_logits(states))


def test_embeddings_of_media_go_through_it() -> None:
    model = Outer()
    mask, rows = torch.tensor([False, True, False]), torch.full((1, 2), 50.0)
    embeds = model.get_input_embeddings(TOKENS, [rows], is_multimodal=mask)
    assert torch.equal(model(None, POSITIONS, inputs_embeds=embeds), embeds + POSITIONS[:, None])
    assert torch.equal(embeds[1], rows[0])


def test_nothing_that_is_given_is_dropped() -> None:
    model = Outer()
    assert torch.equal(model(TOKENS, POSITIONS, plus=1.0), model(TOKENS, POSITIONS) + 1)
    with pytest.raises(TypeError, match="intermediate_tensors"):  # this one is no stage of a pipeline
        model(TOKENS, POSITIONS, intermediate_tensors={"hidden": torch.zeros(3, 2)})


class Silent(sdk.Model):
    """Says nothing."""


class Alone(Silent, sdk.SupportsMultiModal):
    def get_language_model(self) -> nn.Module:
        return self


@pytest.mark.parametrize("cls", [Silent, Alone])
def test_without_one_what_is_missing_is_named(cls: type[sdk.Model]) -> None:
    model = cls(ctx=CTX)
    for hook, call in {
        "get_input_embeddings": lambda: model.get_input_embeddings(TOKENS),
        "forward": lambda: model(TOKENS, POSITIONS),
        "compute_logits": lambda: model.compute_logits(torch.zeros(3, 2)),
    }.items():
        with pytest.raises(NotImplementedError, match=f"{cls.__name__} has no {hook}"):
            call()

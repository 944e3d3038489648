"""Faults in models that pool are caught at their level, with the likely cause; a sound one is not accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_plugin_bert.model import BertForSequenceClassification, BertModel
from engine_plugin_bert.plugin import engine_architectures
from torch import Tensor

from sdk.layers.attention import attention_reference
from sdk.testing import LawResult

Planted = Callable[..., LawResult]
BERT, CLASSIFIER = (record.name for record in engine_architectures())
FIELDS: dict[str, dict[str, Any]] = {
    BERT: {"tiny": "engine_plugin_bert.tiny:bert", "capabilities": engine_architectures()[0].capabilities},
    CLASSIFIER: {"tiny": "engine_plugin_bert.tiny:classifier", "capabilities": "engine_plugin_bert.plugin:classifier"},
}


class Causal(BertModel):
    """Attention that sees what is before alone."""

    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        for layer in self.layers:
            layer.attention.reference = lambda q, k, v: attention_reference(q, k, v, scale=q.shape[-1] ** -0.5)  # type: ignore[method-assign]


class OneText(BertForSequenceClassification):
    """A pair is one text to it."""

    def forward(self, *args: Any, token_type_ids: Tensor | None = None, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return super().forward(*args, **kwargs)


class LastRow(BertForSequenceClassification):
    """Looks at the last token, and its checkpoint was trained with the first."""

    def classify(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.pooler(hidden_states[lengths.cumsum(0) - 1]).tanh())


class AllRows(BertModel):
    """The mean over all rows of a step, whose ever they are."""

    def embed(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        return hidden_states.mean(0).expand(len(lengths), -1)


class Remembers(BertModel):
    """Adds a little of what it made before."""

    before: Tensor | None = None

    def embed(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        made = super().embed(hidden_states, lengths)
        if self.before is not None and len(made) > 2:
            made = made + 0.1 * self.before
        self.before = made[:1].clone()
        return made


class Keeps(BertModel):
    """Keeps every embedding that it made."""

    made: list[Tensor]

    def embed(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        found = super().embed(hidden_states, lengths)
        self.made = [*getattr(self, "made", ()), found]
        return found


class OwnPositions(BertModel):
    """Positions that it makes itself, over all rows of a step."""

    def forward(self, input_ids: Tensor, positions: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return super().forward(input_ids, torch.arange(len(input_ids)) % 256, *args, **kwargs)


@pytest.mark.parametrize(
    ("architecture", "model", "law", "what", "cause"),
    [
        (BERT, Causal, "L4.pooled-states", "hidden states differ", "attention that is causal"),
        (CLASSIFIER, OneText, "L4.pooled-states", "hidden states differ", "which of the pair's texts"),
        (CLASSIFIER, LastRow, "L4.pooled-reference", "numbers differ", "which rows classify takes"),
        (BERT, AllRows, "L4.pooled-engine", "numbers differ", "over all rows instead of over those of a sequence"),
        (BERT, OwnPositions, "L4.pooled-engine", "numbers differ", "forward or the hook computes over all rows"),
        (BERT, Remembers, "L5.pooled-batch", "from those of the text alone", "something kept from another text"),
        (BERT, Keeps, "L5.pooled-memory", "left tensors behind", "a tensor kept on self"),
    ],
)
def test_a_fault_is_caught_with_its_cause(
    planted: Planted, architecture: str, model: type, law: str, what: str, cause: str
) -> None:
    result = planted(law, architecture, "model", model, **FIELDS[architecture])
    assert (result.status, result.law) == ("failed", law), result.explain()
    assert what in result.detail
    assert cause in result.cause
    assert result.smallest


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tasks": ("generate",)}, "implements SupportsPooling"),
        ({"chunked_prefill": "any"}, "needs each text whole in one step"),
        ({"prefix_caching": True}, "needs each text whole in one step"),
    ],
)
def test_capabilities_that_do_not_go_with_pooling(planted: Planted, change: dict[str, Any], what: str) -> None:
    told = FIELDS[BERT]["capabilities"].model_copy(update=change)
    result = planted("L1.capabilities", BERT, "model", BertModel, **{**FIELDS[BERT], "capabilities": told})
    assert result.status == "failed"
    assert what in result.detail


def test_a_sound_model_is_not_accused_and_makes_no_tokens(planted: Planted) -> None:
    for architecture, model in ((BERT, BertModel), (CLASSIFIER, BertForSequenceClassification)):
        result = planted("L5.pooled-batch", architecture, "model", model, **FIELDS[architecture])
        assert result.status == "passed", result.explain()
        result = planted("L4.greedy", architecture, "model", model, **FIELDS[architecture])
        assert result.status == "skipped"
        assert "it makes no tokens" in result.detail

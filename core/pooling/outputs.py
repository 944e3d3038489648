"""What users get of a model that pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError

Vector = NDArray[np.float32]
NOTHING: Vector = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class EmbeddingOutput:
    """A text as a vector.

    Attributes:
        request_id: Unique within the engine.
        prompt_token_ids: The text as the model saw it.
        embedding: `(dimensions,)` float32.
        error: What ended the request, with `on_error="return"`; the embedding is empty then.
    """

    request_id: str
    prompt_token_ids: Sequence[int] = field(repr=False)
    embedding: Vector = field(repr=False)
    error: EngineError | None = None


@dataclass(frozen=True)
class ClassificationOutput:
    """What a text is.

    Attributes:
        request_id: Unique within the engine.
        prompt_token_ids: The text as the model saw it.
        labels: The classes, as the model's config names them.
        probs: `(labels,)` float32, each class's probability (or value, of a regression).
        error: What ended the request, with `on_error="return"`; there are no probabilities then.
    """

    request_id: str
    prompt_token_ids: Sequence[int] = field(repr=False)
    labels: Sequence[str]
    probs: Vector
    error: EngineError | None = None

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.labels[int(self.probs.argmax())]


@dataclass(frozen=True)
class ScoringOutput:
    """How well a document answers a query.

    Attributes:
        request_id: Unique within the engine.
        prompt_token_ids: The pair as a cross-encoder saw it; of two embeddings, the document.
        score: The higher the better: what a cross-encoder says, or the cosine of the two embeddings.
        error: What ended the request, with `on_error="return"`; the score is NaN then.
    """

    request_id: str
    prompt_token_ids: Sequence[int] = field(repr=False)
    score: float
    error: EngineError | None = None

"""Calls of `embed`, `classify` and `score`: which prompts they are, and what becomes of the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from ..errors import EngineError, InvalidRequestError, RequestAborted
from ..outputs import RequestOutput
from ..prompt_forms import as_list
from .outputs import NOTHING, ClassificationOutput, EmbeddingOutput, ScoringOutput, Vector
from .params import PoolingParams
from .prompts import PAIR
from .tasks import require

if TYPE_CHECKING:
    from ..served import ServedEngine

T = TypeVar("T")


class PoolingCall(NamedTuple, Generic[T]):
    """A call.

    Attributes:
        prompts: What is processed.
        params: What is made of each.
        read: The results of all of them → what the caller gets.
    """

    prompts: Sequence[Any]
    params: PoolingParams
    read: Callable[[Sequence[RequestOutput]], list[T]]


def embed_call(engine: ServedEngine, prompts: Any, params: PoolingParams) -> PoolingCall[EmbeddingOutput]:
    """Vectors of prompts."""
    _require(engine, "embed")
    return PoolingCall(as_list(prompts), params, lambda outputs: [_embedding(output) for output in outputs])


def classify_call(engine: ServedEngine, prompts: Any, truncate: int | bool | None) -> PoolingCall[ClassificationOutput]:
    """Classes of prompts."""
    _require(engine, "classify")
    config = engine.checkpoint.hf_config
    labels = [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]

    def read(outputs: Sequence[RequestOutput]) -> list[ClassificationOutput]:
        return [ClassificationOutput(o.request_id, o.prompt_token_ids, labels, _vector(o), _error(o)) for o in outputs]

    return PoolingCall(as_list(prompts), PoolingParams("classify", truncate=truncate), read)


def score_call(
    engine: ServedEngine, query: Any, documents: Any, truncate: int | bool | None
) -> PoolingCall[ScoringOutput]:
    """How well documents answer a query: by a cross-encoder that reads both, else by their embeddings."""
    listed: list[Any] = [documents] if isinstance(documents, str) else list(documents)
    if not isinstance(query, str) or not all(isinstance(document, str) for document in listed):
        raise InvalidRequestError("query is a text, and so is each document", param="documents")
    if "score" in engine.capabilities.tasks:
        pairs = [{"prompt": query, PAIR: document} for document in listed]
        params = PoolingParams("score", truncate=truncate)
        return PoolingCall(
            pairs, params, lambda outputs: [_score(output, np.ones(1, np.float32)) for output in outputs]
        )
    if "embed" not in engine.capabilities.tasks:
        _require(engine, "score")
    return PoolingCall([query, *listed], PoolingParams("embed", normalize=True, truncate=truncate), _cosines)


def _cosines(outputs: Sequence[RequestOutput]) -> list[ScoringOutput]:
    query, *documents = outputs
    return [_score(document, _vector(query), _error(query)) for document in documents]


def _score(output: RequestOutput, weights: Vector, error: EngineError | None = None) -> ScoringOutput:
    """The product of a result with `weights`; NaN where `error`, or its own, prevents it."""
    error = error or _error(output)
    score = float(np.dot(_vector(output), weights)) if error is None else math.nan
    return ScoringOutput(output.request_id, output.prompt_token_ids, score, error)


def _embedding(output: RequestOutput) -> EmbeddingOutput:
    return EmbeddingOutput(output.request_id, output.prompt_token_ids, _vector(output), _error(output))


def _error(output: RequestOutput) -> EngineError | None:
    if output.error is None and output.pooled is None:
        return RequestAborted("it was aborted before it was answered")
    return output.error


def _vector(output: RequestOutput) -> Vector:
    return NOTHING if output.pooled is None else output.pooled


def _require(engine: ServedEngine, task: str) -> None:
    require(task, engine.capabilities.tasks, engine.plugin.architecture.name)

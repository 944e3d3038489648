"""A small inference engine on which every architecture is a plugin: `from core import LLM, SamplingParams`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._lazy import attach

__version__ = "1.0.0"

__getattr__, __dir__, _names = attach(
    __name__,
    {
        "AsyncLLM": "async_llm",
        "ClassificationOutput": "pooling",
        "CompletionOutput": "outputs",
        "EmbeddingOutput": "pooling",
        "EngineConfig": "config",
        "LLM": "llm",
        "PoolingParams": "pooling",
        "RequestOutput": "outputs",
        "RequestOutputKind": "outputs",
        "SamplingParams": "sampling",
        "ScoringOutput": "pooling",
        "StructuredOutputs": "sampling",
        "ToolCall": "outputs",
        "errors": "errors",
        "explain": "explanation",
    },
)
__all__ = _names

if TYPE_CHECKING:
    from . import errors as errors
    from .async_llm import AsyncLLM as AsyncLLM
    from .config import EngineConfig as EngineConfig
    from .explanation import explain as explain
    from .llm import LLM as LLM
    from .outputs import CompletionOutput as CompletionOutput
    from .outputs import RequestOutput as RequestOutput
    from .outputs import RequestOutputKind as RequestOutputKind
    from .outputs import ToolCall as ToolCall
    from .pooling import ClassificationOutput as ClassificationOutput
    from .pooling import EmbeddingOutput as EmbeddingOutput
    from .pooling import PoolingParams as PoolingParams
    from .pooling import ScoringOutput as ScoringOutput
    from .sampling import SamplingParams as SamplingParams
    from .sampling import StructuredOutputs as StructuredOutputs

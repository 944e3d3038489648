"""Media: what a plugin says of its HF processor, its worst case, its tensors and its placeholders."""

from .dummy import BaseDummyInputsBuilder
from .fields import MultiModalFieldConfig, MultiModalKwargsItems, join_items
from .info import BaseProcessingInfo, InputProcessingContext
from .items import (
    AudioProcessorItems,
    EmbeddingItems,
    ImageEmbeddingItems,
    ImageProcessorItems,
    ImageSize,
    MultiModalDataItems,
    ProcessedItems,
)
from .merge import flatten_embeddings, merge_by_mask, merge_multimodal_embeddings
from .processor import BaseMultiModalProcessor, ItemMemory, ProcessedItem, ProcessedPrompt
from .updates import (
    PlaceholderRange,
    PromptIndexTargets,
    PromptInsertion,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

__all__ = [
    "AudioProcessorItems",
    "BaseDummyInputsBuilder",
    "BaseMultiModalProcessor",
    "BaseProcessingInfo",
    "EmbeddingItems",
    "ImageEmbeddingItems",
    "ImageProcessorItems",
    "ImageSize",
    "ItemMemory",
    "InputProcessingContext",
    "MultiModalDataItems",
    "MultiModalFieldConfig",
    "MultiModalKwargsItems",
    "PlaceholderRange",
    "ProcessedItem",
    "ProcessedItems",
    "ProcessedPrompt",
    "PromptIndexTargets",
    "PromptInsertion",
    "PromptReplacement",
    "PromptUpdate",
    "PromptUpdateDetails",
    "flatten_embeddings",
    "join_items",
    "merge_by_mask",
    "merge_multimodal_embeddings",
]

"""The three processing classes, with the hooks that they had in former guides: each is called by today's hook."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from .. import multimodal
from .._contract import hook
from ..multimodal.merge import merge_multimodal_embeddings
from .inputs import ProcessorInputs

Info = TypeVar("Info", bound=multimodal.BaseProcessingInfo)


class BaseProcessingInfo(multimodal.BaseProcessingInfo):
    """`sdk.multimodal.BaseProcessingInfo`, whose `get_mm_max_tokens_per_item` may take `seq_len` alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = vars(cls).get("get_mm_max_tokens_per_item")
        if own is not None and len(inspect.signature(own).parameters) == 2:
            cls.get_mm_max_tokens_per_item = _of_length(own)  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)


def _of_length(function: Callable[[Any, int], Mapping[str, int]]) -> Any:
    def get_mm_max_tokens_per_item(self: Any, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return function(self, seq_len)

    return get_mm_max_tokens_per_item


class BaseDummyInputsBuilder(multimodal.BaseDummyInputsBuilder[Info]):
    """`sdk.multimodal.BaseDummyInputsBuilder`, which may write one hook in the place of two."""

    @hook
    def get_dummy_processor_inputs(self, seq_len: int, mm_counts: Mapping[str, int]) -> ProcessorInputs:
        """The dummy text and the media that give as many embeddings as `mm_counts` items can."""
        raise NotImplementedError(
            f"{type(self).__qualname__} has neither get_dummy_processor_inputs nor get_dummy_text and get_dummy_mm_data"
        )

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        length = getattr(self.info.get_hf_config().get_text_config(), "max_position_embeddings", None) or 2048
        return self.get_dummy_processor_inputs(int(length), mm_counts).prompt_text

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return dict(self.get_dummy_processor_inputs(seq_len, mm_counts).mm_data)

    def get_hf_config(self) -> Any:
        """The parsed config, which former builders asked themselves for."""
        return self.info.get_hf_config()


class BaseMultiModalProcessor(multimodal.BaseMultiModalProcessor[Info]):
    """`sdk.multimodal.BaseMultiModalProcessor`, which may call its prompt updates `_get_prompt_replacements`."""

    sdk_aliases: ClassVar[Mapping[str, str]] = {"_get_prompt_replacements": "_get_prompt_updates"}


__all__ = [
    "BaseDummyInputsBuilder",
    "BaseMultiModalProcessor",
    "BaseProcessingInfo",
    "merge_multimodal_embeddings",
]

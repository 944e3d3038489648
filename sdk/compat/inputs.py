"""What older guides' processors, mappers and factories are given and return: plain containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, TypeVar

from ..multimodal.info import BaseProcessingInfo
from .config import ModelConfig

T = TypeVar("T")


class LLMInputs(TypedDict, total=False):
    """A prompt on its way through an input processor.

    `prompt_token_ids` are there always; `prompt` is None: the token path has no text.
    """

    prompt_token_ids: list[int]
    prompt: str | None
    multi_modal_data: Mapping[str, Any]


def token_inputs(
    prompt_token_ids: Sequence[int], prompt: str | None = None, multi_modal_data: Mapping[str, Any] | None = None
) -> LLMInputs:
    """What an input processor returns."""
    return LLMInputs(prompt_token_ids=list(prompt_token_ids), prompt=prompt, multi_modal_data=multi_modal_data or {})


@dataclass(frozen=True)
class ImagePixelData:
    """A picture, as the mappers of the oldest guide are given it."""

    image: Any


@dataclass(frozen=True)
class ImageFeatureData:
    """What a vision tower made of a picture, in the place of the picture."""

    image_features: Any


@dataclass(frozen=True)
class SequenceData:
    """Token ids of a dummy prompt."""

    prompt_token_ids: Sequence[int] = field(default_factory=list)

    @classmethod
    def from_prompt_token_counts(cls, *counts: tuple[int, int]) -> SequenceData:
        """(token id, how often) pairs, one after the other."""
        return cls([token for token, count in counts for _ in range(count)])


class DummyData(NamedTuple):
    """What a dummy data factory returns: a prompt and its media."""

    seq_data: Any
    multi_modal_data: Any = None


@dataclass(frozen=True)
class ProcessorInputs:
    """A dummy prompt for an HF processor."""

    prompt_text: str
    mm_data: Mapping[str, Any]


class InputContext:
    """What mappers, factories and input processors are given first.

    Args:
        info: Knows the HF processor.
    """

    def __init__(self, info: BaseProcessingInfo) -> None:
        self._info = info

    @cached_property
    def model_config(self) -> ModelConfig:
        """The model's own configuration."""
        return ModelConfig(self.hf_config, None, self._info.ctx.model, self.tokenizer)

    @property
    def hf_config(self) -> Any:
        """The parsed config; the oldest guide's mappers are given the model's configuration itself."""
        return self._info.get_hf_config()

    @property
    def tokenizer(self) -> Any:
        """The HF tokenizer."""
        return self._info.get_tokenizer()

    def get_hf_config(self, hf_config_type: type[T] | None = None) -> Any:
        """The parsed config, which must be of this type where one is given."""
        config = self.hf_config
        if hf_config_type is not None and not isinstance(config, hf_config_type):
            raise TypeError(f"the config is a {type(config).__name__}, not a {hf_config_type.__name__}")
        return config

    def get_hf_processor(self) -> Any:
        """The HF processor."""
        return self._info.get_hf_processor()

    def get_hf_image_processor(self) -> Any:
        """The HF image processor."""
        return self._info.get_image_processor()

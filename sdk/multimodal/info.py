"""What a plugin tells of its HF processor: limits, sizes, token counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .._contract import check_class, hook
from .._later import models_later
from ..errors import InvalidConfigError
from .items import ImageSize


@dataclass(frozen=True)
class InputProcessingContext:
    """Where the processor comes from.

    Attributes:
        model: Folder of the checkpoint.
        hf_config: The parsed config.
        tokenizer: The HF tokenizer, loaded once.
        mm_processor_kwargs: Extra processor arguments for every request of the engine.
        options: The plugin's own validated options, if it declares some.
    """

    model: str
    hf_config: Any
    tokenizer: Any
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Any = None


class BaseProcessingInfo:
    """Knows the HF processor. A subclass must say `get_supported_mm_limits`."""

    def __init__(self, ctx: InputProcessingContext) -> None:
        self.ctx = ctx

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @hook
    def get_hf_config(self) -> Any:
        """The parsed config of the whole model."""
        return self.ctx.hf_config

    @hook
    def get_tokenizer(self) -> Any:
        """The HF tokenizer."""
        return self.ctx.tokenizer

    @cached_property
    def _hf_processor(self) -> Any:
        try:
            with models_later():
                from transformers import AutoProcessor

                return AutoProcessor.from_pretrained(self.ctx.model, backend="pil", trust_remote_code=False)
        except (OSError, ValueError, ImportError) as e:
            raise InvalidConfigError(
                f"the HF processor of {self.ctx.model!r} cannot be loaded: {e}. The folder needs "
                "preprocessor_config.json or processor_config.json; a model without one needs a plugin that overrides "
                "get_hf_processor"
            ) from e

    @hook
    def get_hf_processor(self) -> Any:
        """The HF processor, loaded once, with image processing by PIL. Override it for a model that has none."""
        return self._hf_processor

    @hook
    def get_image_processor(self) -> Any:
        """The HF image processor."""
        return self.get_hf_processor().image_processor

    @hook
    def get_feature_extractor(self) -> Any:
        """The HF feature extractor, which turns clips into what the model hears."""
        return self.get_hf_processor().feature_extractor

    @hook
    def get_audio_sample_rate(self) -> int:
        """Samples a second that the model hears at; clips of other rates are brought to it before."""
        return int(self.get_feature_extractor().sampling_rate)

    @hook
    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Modality → how many items a prompt may have; None: any number."""
        raise NotImplementedError(f"{type(self).__qualname__} has no get_supported_mm_limits")

    @hook
    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """Rows of embeddings of a picture of this size in pixels."""
        raise NotImplementedError(f"{type(self).__qualname__} has no get_num_image_tokens")

    @hook
    def get_image_size_with_most_features(self) -> ImageSize:
        """The size in pixels of a picture that gives as many embeddings as any."""
        raise NotImplementedError(f"{type(self).__qualname__} has no get_image_size_with_most_features")

    @hook
    def get_max_image_tokens(self) -> int:
        """The most rows of embeddings that one picture can give."""
        width, height = largest_image(self)
        return self.get_num_image_tokens(image_width=width, image_height=height)

    @hook
    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Modality → the most tokens one item can take in the prompt, told without running anything."""
        return {"image": self.get_max_image_tokens()} if "image" in self.get_supported_mm_limits() else {}

    @hook
    def get_placeholder_token_ids(self) -> set[int]:
        """Token ids that stand for embeddings and mean nothing by themselves: none may be left over in a prompt.

        The default takes the config's `<modality>_token_id` and `<modality>_token_index`.
        """
        config = self.get_hf_config()
        names = [f"{m}_token_{s}" for m in self.get_supported_mm_limits() for s in ("id", "index")]
        return {v for v in (getattr(config, n, None) for n in names) if isinstance(v, int)}


def largest_image(info: BaseProcessingInfo) -> ImageSize:
    """What `get_image_size_with_most_features` answers.

    Raises:
        TypeError: It is no size.
    """
    size: Any = info.get_image_size_with_most_features()
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"get_image_size_with_most_features must return ImageSize(width=…, height=…), not {size!r:.80}")
    return ImageSize(*size)

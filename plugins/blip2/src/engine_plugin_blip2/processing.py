"""How HF's Blip2Processor treats a picture: so many picture tokens before the prompt, even before its first special token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdk.errors import InvalidConfigError
from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ImageSize,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptIndexTargets,
    PromptInsertion,
    PromptUpdate,
)


class Blip2ProcessingInfo(BaseProcessingInfo):
    """One picture a prompt, brought to the tower's size. Whatever it shows, it is as many tokens as there are queries."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": 1}

    @property
    def picture_tokens(self) -> list[int]:
        """What stands for a picture."""
        config = self.get_hf_config()
        if config.image_token_index is None:
            raise InvalidConfigError(
                "this checkpoint of BLIP-2 names no image_token_index: it is of before transformers 4.46; fetch the "
                "checkpoint anew, or add the token to its tokenizer and its id to config.json",
                param="image_token_index",
            )
        return [config.image_token_index] * config.num_query_tokens

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return int(self.get_hf_config().num_query_tokens)

    def get_image_size_with_most_features(self) -> ImageSize:
        side = self.get_hf_config().vision_config.image_size
        return ImageSize(width=side, height=side)


class Blip2DummyInputsBuilder(BaseDummyInputsBuilder[Blip2ProcessingInfo]):
    """Any picture is the worst case."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""


class Blip2MultiModalProcessor(BaseMultiModalProcessor[Blip2ProcessingInfo]):
    """Pictures are inserted at the start."""

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        return [PromptInsertion("image", PromptIndexTargets.START, self.info.picture_tokens)]

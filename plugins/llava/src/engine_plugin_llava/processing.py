"""How HF's LlavaProcessor treats pictures and prompts: one `<image>` becomes as many as the picture has features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ImageEmbeddingItems,
    ImageSize,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptReplacement,
    PromptUpdate,
)


class LlavaProcessingInfo(BaseProcessingInfo):
    """Any number of pictures, each cut to the tower's size."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_hf_processor(self) -> Any:
        processor = super().get_hf_processor()
        if processor.patch_size is None:
            # Checkpoints from before transformers 4.45 say this in config.json alone; their towers have a class token.
            config = self.get_hf_config()
            processor.patch_size = config.vision_config.patch_size
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
            processor.num_additional_image_tokens = 1
        return processor

    def count_tokens(self, height: int, width: int) -> int:
        """How many `<image>` tokens HF writes for pixel values of this size."""
        processor = self.get_hf_processor()
        patches = (height // processor.patch_size) * (width // processor.patch_size)
        dropped = processor.vision_feature_select_strategy == "default"
        return int(patches + processor.num_additional_image_tokens - dropped)

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        size = self.get_image_size_with_most_features()
        return self.count_tokens(size.height, size.width)

    def get_image_size_with_most_features(self) -> ImageSize:
        side = self.get_hf_config().vision_config.image_size
        return ImageSize(width=side, height=side)


class LlavaDummyInputsBuilder(BaseDummyInputsBuilder[LlavaProcessingInfo]):
    """Every picture costs the same."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return str(self.info.get_hf_processor().image_token) * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        size = self.info.get_image_size_with_most_features()
        count = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=size.width, height=size.height, num_images=count)}


class LlavaMultiModalProcessor(BaseMultiModalProcessor[LlavaProcessingInfo]):
    """One tensor, one item a row; one `<image>`, one picture."""

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
        image_token_id = self.info.get_hf_config().image_token_id

        def tokens(index: int) -> list[int]:
            pictures = mm_items["image"]
            if isinstance(pictures, ImageEmbeddingItems):
                return [image_token_id] * pictures.get_feature_size(index)
            height, width = out_mm_kwargs["image"][index]["pixel_values"].value.shape[-2:]
            return [image_token_id] * self.info.count_tokens(height, width)

        return [PromptReplacement(modality="image", target=[image_token_id], replacement=tokens)]

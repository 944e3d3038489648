"""How the HF processor treats pictures and prompts: one `<image>` becomes as many tokens as the picture's tiles give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ImageSize,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptReplacement,
    PromptUpdate,
)


class ProcessingInfo(BaseProcessingInfo):
    """What is known before any picture is seen."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def count(self, height: int, width: int) -> int:
        """Tokens of a picture, as HF's processor counts them."""
        said = self.get_hf_processor()._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return int(said["num_image_tokens"][0])

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return self.count(image_height, image_width)

    def get_image_size_with_most_features(self) -> ImageSize:
        sizes = [ImageSize(width=width, height=height) for height, width in self.get_hf_config().image_grid_pinpoints]
        return max(sizes, key=lambda size: self.get_num_image_tokens(image_width=size.width, image_height=size.height))

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": self.get_max_image_tokens()}


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):
    """The worst case: memory is planned for it."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "<image>" * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        size = self.info.get_image_size_with_most_features()
        count = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=size.width, height=size.height, num_images=count)}


class Processor(BaseMultiModalProcessor[ProcessingInfo]):
    """Which tensors belong to which picture, and which tokens stand for it."""

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        config = self.info.get_hf_config()
        pinpoints, side = config.image_grid_pinpoints, config.vision_config.image_size
        tiles = [[image_size_to_num_patches(size, pinpoints, side)] for size in hf_inputs.get("image_sizes", ())]
        return {
            "pixel_values": MultiModalFieldConfig.padded("image", tiles),
            "image_sizes": MultiModalFieldConfig.batched("image"),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        token = self.info.get_hf_config().image_token_id

        def tokens(index: int) -> list[int]:
            height, width = out_mm_kwargs["image"][index]["image_sizes"].value.tolist()
            return [token] * self.info.count(height, width)

        return [PromptReplacement(modality="image", target=[token], replacement=tokens)]

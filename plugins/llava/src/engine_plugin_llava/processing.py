"""How HF's processors treat pictures and prompts: one picture token becomes as many as the picture has features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
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
    PromptUpdateDetails,
)

from .pictures import FixedPictures, NativePictures, Pictures, TiledPictures
from .pixtral_processor import PixtralProcessor


class LlavaProcessingInfo(BaseProcessingInfo):
    """Any number of pictures; what becomes of one depends on the kind of checkpoint."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    @property
    def takes_any_size(self) -> bool:
        """Whether the tower takes pictures in their own shape."""
        return bool(self.get_hf_config().vision_config.model_type == "pixtral")

    @cached_property
    def pictures(self) -> Pictures:
        """What this checkpoint makes of pictures."""
        if self.get_hf_config().model_type == "llava_next":
            return TiledPictures(self)
        return NativePictures(self) if self.takes_any_size else FixedPictures(self)

    @cached_property
    def _pixtral_processor(self) -> PixtralProcessor:
        return PixtralProcessor.load(self.ctx.model, self.get_tokenizer())

    def get_hf_processor(self) -> Any:
        if self.takes_any_size:
            return self._pixtral_processor
        processor = super().get_hf_processor()
        if processor.patch_size is None:
            # Checkpoints from before transformers 4.45 say this in config.json alone; their towers have a class token.
            config = self.get_hf_config()
            processor.patch_size = config.vision_config.patch_size
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
            processor.num_additional_image_tokens = 1
        return processor

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return self.pictures.rows(ImageSize(width=image_width, height=image_height))

    def get_image_size_with_most_features(self) -> ImageSize:
        return self.pictures.largest()

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        size = self.get_image_size_with_most_features()
        return {"image": self.get_max_image_tokens() + self.pictures.separators(size)}


class LlavaDummyInputsBuilder(BaseDummyInputsBuilder[LlavaProcessingInfo]):
    """Pictures of the size that gives most embeddings."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return str(self.info.get_hf_processor().image_token) * mm_counts.get("image", 0)


class LlavaMultiModalProcessor(BaseMultiModalProcessor[LlavaProcessingInfo]):
    """One picture token, one picture."""

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return self.info.pictures.fields(hf_inputs)

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        pictures, items = self.info.pictures, mm_items["image"]

        def tokens(index: int) -> PromptUpdateDetails:
            if isinstance(items, ImageEmbeddingItems):
                return pictures.tokens_of_embeddings(items.get_feature_size(index))
            return pictures.tokens({name: part.value for name, part in out_mm_kwargs["image"][index].items()})

        target = [pictures.image_token_id]
        return [PromptReplacement(modality="image", target=target, replacement=tokens)]

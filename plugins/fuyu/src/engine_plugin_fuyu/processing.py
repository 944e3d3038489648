"""How HF's FuyuProcessor treats pictures and prompts.

No placeholder stands in the prompt. A picture puts `(|SPEAKER| × columns + |NEWLINE|) × rows + <s>` before it, of which only
`|SPEAKER|` takes embeddings, and `<0x04>`, the beginning of the answer, after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from PIL import Image

from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    EmbeddingItems,
    ImageSize,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptIndexTargets,
    PromptInsertion,
    PromptUpdate,
    PromptUpdateDetails,
)

from .given import GRID, PATCHES, check_given, refuse_embeddings
from .hf_processor import mend


class Tokens(NamedTuple):
    """Ids of the tokens that HF's processor writes."""

    patch: int
    newline: int
    begin: int


class FuyuProcessingInfo(BaseProcessingInfo):
    """One picture a prompt, of any size; one larger than the target is fitted into it."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": 1}

    @cached_property
    def _mended(self) -> Any:
        return mend(super().get_hf_processor())

    def get_hf_processor(self) -> Any:
        return self._mended

    @cached_property
    def tokens(self) -> Tokens:
        """What stands for a patch, for the end of a row, and for the end of the picture."""
        processor = self.get_hf_processor()
        begin = processor.tokenizer.convert_tokens_to_ids("<s>")
        return Tokens(processor.image_token_id, processor.image_newline_id, begin)

    @cached_property
    def added_before_text(self) -> list[int]:
        """What the tokenizer puts before every text, and HF's processor leaves out where there is a picture."""
        return list(self.get_tokenizer()("")["input_ids"])

    def answer_tokens(self, after_text: bool) -> list[int]:
        """The beginning of the answer, as HF's processor tokenizes it at the end of a text, or of nothing."""
        tokenizer = self.get_hf_processor().tokenizer
        ids: list[int] = tokenizer("<0x04>", add_special_tokens=False)["input_ids"]
        return ids[-1:] if after_text else ids

    @cached_property
    def _target(self) -> ImageSize:
        size = self.ctx.mm_processor_kwargs.get("size") or self.get_image_processor().size
        return ImageSize(width=size["width"], height=size["height"])

    def get_scale(self, *, image_width: int, image_height: int) -> float:
        """What a picture's sides are multiplied by: never more than 1."""
        if image_width <= self._target.width and image_height <= self._target.height:
            return 1.0
        return min(self._target.height / image_height, self._target.width / image_width)

    def get_image_feature_grid_size(self, *, image_width: int, image_height: int) -> tuple[int, int]:
        """Columns and rows of patches of a picture of this size in pixels."""
        scale = self.get_scale(image_width=image_width, image_height=image_height)
        patch = self.get_image_processor().patch_size
        columns = math.ceil(int(image_width * scale) / patch["width"])
        rows = math.ceil(int(image_height * scale) / patch["height"])
        return max(columns, 1), max(rows, 1)

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        columns, rows = self.get_image_feature_grid_size(image_width=image_width, image_height=image_height)
        return columns * rows

    def get_image_size_with_most_features(self) -> ImageSize:
        return self._target

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        columns, rows = self.get_image_feature_grid_size(
            image_width=self._target.width, image_height=self._target.height
        )
        return {"image": (columns + 1) * rows + 1}


class FuyuDummyInputsBuilder(BaseDummyInputsBuilder[FuyuProcessingInfo]):
    """The worst case is a picture that fills the target."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""


class FuyuMultiModalProcessor(BaseMultiModalProcessor[FuyuProcessingInfo]):
    """The rows of patches of all pictures end to end, and each picture's grid."""

    def parse(self, mm_data: Mapping[str, Any]) -> MultiModalDataItems:
        check_given(mm_data.get("image"))
        return super().parse(mm_data)

    def _call_hf_processor(
        self,
        prompt: str,
        mm_data: Mapping[str, object],
        mm_kwargs: Mapping[str, object],
        tok_kwargs: Mapping[str, object],
    ) -> Mapping[str, Any]:
        pictures: Any = mm_data["images"]
        data = {**mm_data, "images": [self._with_a_pixel(picture) for picture in pictures]}
        made = dict(super()._call_hf_processor(prompt, data, mm_kwargs, tok_kwargs))
        # The picture's shape is lost in its patches; the tokens that HF wrote for them still tell it.
        rows = int((made["input_ids"] == self.info.tokens.newline).sum())
        patches = next(made[name] for name in PATCHES if name in made)
        made[GRID] = torch.tensor([[rows, len(patches) // rows]])
        return made

    def _with_a_pixel(self, picture: Image.Image) -> Image.Image:
        """The picture; one so thin that HF's processor would fit it into no pixel at all keeps one across."""
        width, height = picture.size
        scale = self.info.get_scale(image_width=width, image_height=height)
        fitted = ImageSize(int(width * scale), int(height * scale))
        if min(fitted) > 0:
            return picture
        return picture.convert("RGB").resize((max(fitted.width, 1), max(fitted.height, 1)), Image.Resampling.BILINEAR)

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        grids = hf_inputs.get(GRID)
        # One picture owns all there is, where nobody says how it is divided.
        sizes = [len(hf_inputs[n]) for n in PATCHES if n in hf_inputs] if grids is None else grids.prod(dim=-1)
        rows = MultiModalFieldConfig.flat_from_sizes("image", sizes)
        return {**dict.fromkeys(PATCHES, rows), GRID: MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        if isinstance(mm_items["image"], EmbeddingItems):
            refuse_embeddings()
        patch, newline, begin = self.info.tokens

        def tokens(index: int) -> PromptUpdateDetails:
            rows, columns = out_mm_kwargs["image"][index][GRID].value.tolist()
            full = [*([*[patch] * columns, newline] * rows), begin]
            return PromptUpdateDetails.select_token_id(full, embed_token_id=patch)

        return [PromptInsertion(modality="image", target=PromptIndexTargets.START, insertion=tokens)]

    def _apply_hf_processor_tokens_only(
        self, prompt_tokens: list[int], mm_counts: Mapping[str, int] | None = None
    ) -> list[int]:
        if not (mm_counts or {}).get("image"):
            return prompt_tokens
        before = self.info.added_before_text
        text = prompt_tokens[len(before) :] if prompt_tokens[: len(before)] == before else prompt_tokens
        return [*text, *self.info.answer_tokens(after_text=bool(text))]

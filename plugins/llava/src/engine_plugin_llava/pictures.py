"""What HF's processors make of a picture: which tensors, which tokens, how many rows of embeddings.

Three kinds of checkpoints share the classes of `processing`; what differs between them stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from sdk.errors import InvalidRequestError, MediaUnsupportedError
from sdk.multimodal import BaseProcessingInfo, ImageSize, MultiModalFieldConfig, PromptUpdateDetails

from .pixtral_processor import PixtralProcessor
from .tiling import Tiling

Tensors = Mapping[str, Any]
"""Names of tensors → tensors: of one item, or as HF's processor makes them."""


class Pictures(ABC):
    """How one kind of checkpoint takes its pictures."""

    def __init__(self, info: BaseProcessingInfo) -> None:
        self.info = info
        self.config = info.get_hf_config()
        self.image_token_id: int = self.config.image_token_id

    @property
    def processor(self) -> Any:
        """HF's processor."""
        return self.info.get_hf_processor()

    @abstractmethod
    def largest(self) -> ImageSize:
        """The size of a picture that gives as many embeddings as any."""

    @abstractmethod
    def rows(self, size: ImageSize) -> int:
        """Rows of embeddings of a picture of this size, told without processing it."""

    def separators(self, size: ImageSize) -> int:
        """Tokens that take no embedding among those of a picture of this size."""
        return 0

    @abstractmethod
    def fields(self, tensors: Tensors) -> Mapping[str, MultiModalFieldConfig]:
        """How the tensors of all pictures fall into pictures."""

    @abstractmethod
    def tokens(self, tensors: Tensors) -> PromptUpdateDetails:
        """The tokens of a picture of these tensors."""

    def tokens_of_embeddings(self, rows: int) -> PromptUpdateDetails:
        """The tokens of a picture that came as so many rows of embeddings."""
        return PromptUpdateDetails([self.image_token_id] * rows)


class FixedPictures(Pictures):
    """Every picture is cut or stretched to the one size that the tower knows: HF's `LlavaProcessor`."""

    def largest(self) -> ImageSize:
        side = self.config.vision_config.image_size
        return ImageSize(width=side, height=side)

    def rows(self, size: ImageSize) -> int:
        side = self.config.vision_config.image_size
        return self._count(side, side)

    def fields(self, tensors: Tensors) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def tokens(self, tensors: Tensors) -> PromptUpdateDetails:
        height, width = tensors["pixel_values"].shape[-2:]
        return PromptUpdateDetails([self.image_token_id] * self._count(height, width))

    def _count(self, height: int, width: int) -> int:
        """How many picture tokens HF writes for pixel values of this size."""
        patches = (height // self.processor.patch_size) * (width // self.processor.patch_size)
        return patches + extra_tokens(self.processor)


class TiledPictures(Pictures):
    """The whole picture in the tower's size, and tiles of it: HF's `LlavaNextProcessor`."""

    @property
    def tiling(self) -> Tiling:
        """As HF's processor has it."""
        pinpoints = self.processor.image_processor.image_grid_pinpoints
        return Tiling.of(pinpoints, self.config.vision_config.image_size, self.processor.patch_size)

    def largest(self) -> ImageSize:
        # A picture of a pinpoint's own size is laid over it without padding, and nothing gives more than no padding.
        sizes = [ImageSize(width=width, height=height) for height, width in self.tiling.pinpoints]
        return max(sizes, key=self.rows)

    def rows(self, size: ImageSize) -> int:
        tiling = self.tiling
        return tiling.patches**2 + extra_tokens(self.processor) + tiling.features((size.height, size.width))

    def fields(self, tensors: Tensors) -> Mapping[str, MultiModalFieldConfig]:
        require(tensors, "pixel_values", "image_sizes")
        counts = [[self.tiling.count(size)] for size in sizes_of(tensors)]
        return {
            "pixel_values": MultiModalFieldConfig.padded("image", counts),
            "image_sizes": MultiModalFieldConfig.batched("image"),
        }

    def tokens(self, tensors: Tensors) -> PromptUpdateDetails:
        height, width = (int(n) for n in tensors["image_sizes"])
        return PromptUpdateDetails([self.image_token_id] * self.rows(ImageSize(width=width, height=height)))


class NativePictures(Pictures):
    """A picture keeps its shape, and is made smaller only where it is too large: HF's `PixtralProcessor`.

    Each line of its patches ends in a token that takes no embedding.
    """

    @property
    def native(self) -> PixtralProcessor:
        """The processor."""
        found: PixtralProcessor = self.processor
        return found

    def largest(self) -> ImageSize:
        height, width = self.native.limits(self.info.ctx.mm_processor_kwargs)
        return ImageSize(width=width, height=height)

    def rows(self, size: ImageSize) -> int:
        lines, columns = self._grid(size)
        return lines * columns

    def separators(self, size: ImageSize) -> int:
        lines, _ = self._grid(size)
        return lines

    def _grid(self, size: ImageSize) -> tuple[int, int]:
        return self.native.grid(size.height, size.width, self.native.limits(self.info.ctx.mm_processor_kwargs))

    def fields(self, tensors: Tensors) -> Mapping[str, MultiModalFieldConfig]:
        require(tensors, "pixel_values", "image_sizes")
        shapes = [(len(pixels), *size) for pixels, size in zip(tensors["pixel_values"], sizes_of(tensors))]
        return {
            "pixel_values": MultiModalFieldConfig.padded("image", shapes),
            "image_sizes": MultiModalFieldConfig.batched("image"),
        }

    def tokens(self, tensors: Tensors) -> PromptUpdateDetails:
        height, width = (int(n) for n in tensors["image_sizes"])
        return PromptUpdateDetails.select_token_id(self.native.tokens(height, width), self.image_token_id)

    def tokens_of_embeddings(self, rows: int) -> PromptUpdateDetails:
        raise MediaUnsupportedError(
            "this model takes no pictures as embeddings: rows alone do not say where the picture's lines end; give the "
            "picture, or what the processor made of it",
            param="multi_modal_data.image",
        )


def extra_tokens(processor: Any) -> int:
    """Picture tokens besides those of the patches, as HF counts them: what the tower adds, less what is dropped."""
    return int(processor.num_additional_image_tokens - (processor.vision_feature_select_strategy == "default"))


def sizes_of(tensors: Tensors) -> Sequence[tuple[int, int]]:
    """Heights and widths of all pictures."""
    return [(int(height), int(width)) for height, width in tensors["image_sizes"]]


def require(tensors: Tensors, *names: str) -> None:
    """Raise InvalidRequestError where a tensor is missing, which only those that a caller has processed can be."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InvalidRequestError(
            f"processed pictures need {' and '.join(names)}, as the processor makes them; there is no {missing[0]}",
            param="multi_modal_data.image",
        )

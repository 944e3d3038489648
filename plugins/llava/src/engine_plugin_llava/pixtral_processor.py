"""What transformers' `PixtralProcessor` does, which transformers imports only where torchvision is installed.

Nothing of it needs torchvision when pictures are processed by PIL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from sdk.errors import InvalidConfigError, MediaUnsupportedError


@dataclass(frozen=True)
class PixtralProcessor:
    """Pictures in their own shape, and for each line of patches a token that ends it.

    Attributes:
        image_processor: HF's `PixtralImageProcessorPil`.
        tokenizer: HF's tokenizer.
        patch_size: Pixels along a patch's side.
        spatial_merge_size: Patches along a side that become one embedding.
        image_token, image_break_token, image_end_token: What stands for an embedding, for the end of a line, and for the
            end of the last one.
        chat_template: The checkpoint's, if it has one.
    """

    image_processor: Any
    tokenizer: Any
    patch_size: int = 16
    spatial_merge_size: int = 1
    image_token: str = "[IMG]"
    image_break_token: str = "[IMG_BREAK]"
    image_end_token: str = "[IMG_END]"
    chat_template: Any = None

    @classmethod
    def load(cls, folder: str, tokenizer: Any) -> PixtralProcessor:
        """Read a checkpoint's processor.

        Raises:
            InvalidConfigError: The folder has no image processor, or none that can be loaded.
        """
        from transformers import AutoImageProcessor
        from transformers.processing_utils import ProcessorMixin

        try:
            said, _ = ProcessorMixin.get_processor_dict(folder)
            image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
        except (OSError, ValueError, ImportError) as e:
            raise InvalidConfigError(f"the image processor of {folder!r} cannot be loaded: {e}") from e
        own = [name for name in cls.__dataclass_fields__ if name not in ("image_processor", "tokenizer")]
        return cls(image_processor, tokenizer, **{name: said[name] for name in own if said.get(name) is not None})

    def __call__(self, text: str, images: Any = None, return_tensors: str = "pt", **kwargs: Any) -> dict[str, Any]:
        """Process one prompt as HF's processor does: token ids, and the tensors of the pictures."""
        made: dict[str, Any] = {}
        if images is not None:
            pictures = images if isinstance(images, (list, tuple)) else [images]
            self._refuse_thin(pictures, self.limits(kwargs))
            kwargs["patch_size"] = self.cell
            made = dict(self.image_processor(pictures, return_tensors=return_tensors, **kwargs))
        sizes = [(int(height), int(width)) for height, width in made.get("image_sizes", ())]
        texts = text.split(self.image_token)
        if len(texts) != len(sizes) + 1:
            raise ValueError(f"{len(texts) - 1} {self.image_token} in the text, {len(sizes)} pictures")
        marks = ["".join(self._marks(*size)) for size in sizes]
        expanded = "".join(chain.from_iterable(zip_longest(texts, marks, fillvalue="")))
        return {**self.tokenizer([expanded], return_tensors=return_tensors), **made}

    @property
    def cell(self) -> int:
        """Pixels along the side of what becomes one embedding."""
        return self.patch_size * self.spatial_merge_size

    def limits(self, kwargs: Mapping[str, Any]) -> tuple[int, int]:
        """Largest height and width of a processed picture, before they are filled up to whole patches."""
        size = dict(kwargs.get("size") or self.image_processor.size)
        longest = size.get("longest_edge")
        return (longest, longest) if longest else (size["height"], size["width"])

    def grid(self, height: int, width: int, limits: tuple[int, int]) -> tuple[int, int]:
        """Lines of a picture of this size, and embeddings in each."""
        ratio = max(height / limits[0], width / limits[1])
        if ratio > 1:
            height, width = int(height / ratio), int(width / ratio)
        return -(-height // self.cell), -(-width // self.cell)

    def tokens(self, height: int, width: int) -> list[int]:
        """The tokens of a picture that was processed to this size."""
        ids: Sequence[int] = self.tokenizer.convert_tokens_to_ids(self._marks(height, width))
        return list(ids)

    def _marks(self, height: int, width: int) -> list[str]:
        lines, columns = height // self.cell, width // self.cell
        line = [self.image_token] * columns + [self.image_break_token]
        return [*(line * lines)[:-1], self.image_end_token]

    def _refuse_thin(self, pictures: Sequence[Any], limits: tuple[int, int]) -> None:
        """Raise MediaUnsupportedError for a picture of which nothing is left when its longer side fits."""
        for picture in pictures:
            width, height = picture.size
            if not all(self.grid(height, width, limits)):
                raise MediaUnsupportedError(
                    f"a picture of {width}×{height} pixels is too thin: made small enough for this model, it has no "
                    "pixel across",
                    param="multi_modal_data.image",
                )

"""Dummy inputs: the worst case a model can meet, for memory profiling and for running the HF processor without text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from .._contract import check_class, hook
from .info import BaseProcessingInfo, largest_image

Info = TypeVar("Info", bound=BaseProcessingInfo)


class BaseDummyInputsBuilder(Generic[Info]):
    """Builds the inputs that need the most memory. A subclass writes `get_dummy_text`, and for other media both hooks."""

    def __init__(self, info: Info) -> None:
        self.info = info

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @hook
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A text with a placeholder for each of the items, as the HF processor wants it; `""` where it wants none."""
        raise NotImplementedError(f"{type(self).__qualname__} has no get_dummy_text")

    @hook
    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        """Media that give as many embeddings as `mm_counts` items can: modality → items.

        The default serves a model that takes pictures: they have the size that `info` says gives most embeddings.
        """
        if mm_counts.keys() - {"image"}:
            raise NotImplementedError(
                f"{type(self).__qualname__} has no get_dummy_mm_data; the default makes items of 'image' alone, not of "
                + ", ".join(map(repr, sorted(mm_counts)))
            )
        width, height = largest_image(self.info)
        count = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=width, height=height, num_images=count)}

    def _get_dummy_images(self, *, width: int, height: int, num_images: int) -> list[Any]:
        from PIL import Image

        return [Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8))] * num_images

    def _get_dummy_audios(self, *, length: int, num_audios: int) -> list[Any]:
        """Silence of `length` samples at the model's rate."""
        return [np.zeros(length, dtype=np.float32)] * num_audios

    def _get_dummy_videos(self, *, width: int, height: int, num_frames: int, num_videos: int) -> list[Any]:
        return [np.zeros((num_frames, height, width, 3), dtype=np.uint8)] * num_videos

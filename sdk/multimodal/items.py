"""The media of one prompt, sorted by modality and by form: raw, already processed, or already embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidRequestError, MediaUnsupportedError
from ..speech import is_clip


class ImageSize(NamedTuple):
    """Width and height of a picture in pixels."""

    width: int
    height: int


class ModalityItems:
    """The items of one modality in one prompt, all in one form."""

    modality: str

    def get_count(self) -> int:
        """How many items there are."""
        raise NotImplementedError


class RawItems(ModalityItems):
    """Items the HF processor still has to process."""

    def __init__(self, modality: str, data: Sequence[Any]) -> None:
        self.modality, self.data = modality, list(data)

    def get_count(self) -> int:
        return len(self.data)

    def get(self, index: int) -> Any:
        """The `index`-th item."""
        return self.data[index]


class ImageProcessorItems(RawItems):
    """Pictures as PIL images."""

    def get_image_size(self, index: int) -> ImageSize:
        """Size of the `index`-th picture."""
        return ImageSize(*self.data[index].size)


class AudioProcessorItems(RawItems):
    """Clips as `(samples,)` float32, one channel each.

    Args:
        modality: `"audio"`.
        data: The clips.
        rates: Samples a second of each, as the caller said; None: the model's own.
    """

    def __init__(self, modality: str, data: Sequence[NDArray[np.float32]], rates: Sequence[float | None]) -> None:
        super().__init__(modality, data)
        self.rates = list(rates)

    def get_audio_length(self, index: int) -> int:
        """Samples of the `index`-th clip."""
        return len(self.data[index])

    def check_rates(self, expected: int) -> None:
        """Refuse clips of another rate than the model hears at.

        Raises:
            InvalidRequestError: A clip has another; resampling is done before, by the engine's one media door.
        """
        for index, rate in enumerate(self.rates):
            if rate is not None and rate != expected:
                raise InvalidRequestError(
                    f"{self.modality} {index} has {rate:g} samples a second, but this model hears at {expected}",
                    param=f"multi_modal_data.{self.modality}",
                )


class ProcessedItems(ModalityItems):
    """Tensors as the HF processor makes them, named like the model's arguments; the processor is skipped."""

    def __init__(self, modality: str, tensors: Mapping[str, Any], count: int) -> None:
        self.modality, self.tensors, self.count = modality, dict(tensors), count

    def get_count(self) -> int:
        return self.count


class EmbeddingItems(ModalityItems):
    """Embeddings of the language model's width, as the projector makes them; processor and encoder are skipped."""

    def __init__(self, modality: str, embeddings: Sequence[Tensor]) -> None:
        self.modality, self.embeddings = modality, list(embeddings)

    def get_count(self) -> int:
        return len(self.embeddings)

    def get_feature_size(self, index: int) -> int:
        """Rows of the `index`-th item's embeddings."""
        return int(self.embeddings[index].shape[0])


ImageEmbeddingItems = EmbeddingItems
T = TypeVar("T", bound=ModalityItems)


class MultiModalDataItems(dict[str, ModalityItems]):
    """Modality → its items."""

    def get_count(self, modality: str) -> int:
        """How many items of a modality there are, whatever their form."""
        return self[modality].get_count() if modality in self else 0

    def get_all_counts(self) -> dict[str, int]:
        """Modality → how many items."""
        return {m: items.get_count() for m, items in self.items()}

    def get_items(self, modality: str, kind: type[T] | tuple[type[T], ...]) -> T:
        """The items of a modality, which must be of this form.

        Raises:
            MediaUnsupportedError: They are of another form, which the plugin does not take.
        """
        items = self[modality]
        if not isinstance(items, kind):
            raise MediaUnsupportedError(
                f"this model does not take {modality} as {type(items).__name__.lower()}", code="unsupported_modality"
            )
        return items


def is_embedding(value: Any) -> bool:
    """Whether a value is media embeddings: a float tensor `(n, hidden)` or `(items, n, hidden)`."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim in (2, 3)


def _embeddings(modality: str, value: Any) -> EmbeddingItems:
    tensors = list(value) if isinstance(value, (list, tuple)) or value.ndim == 3 else [value]
    for i, t in enumerate(tensors):
        if not is_embedding(t) or t.ndim != 2 or not t.numel():
            raise InvalidRequestError(
                f"{modality} embeddings {i} must be a float tensor (rows, hidden), not empty, but it is {_describe(t)}",
                param=f"multi_modal_data.{modality}",
            )
    return EmbeddingItems(modality, tensors)


def _describe(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} {value.dtype} {tuple(value.shape)}" if isinstance(value, (Tensor, np.ndarray)) else kind


def parse_items(modality: str, value: Any) -> ModalityItems:
    """Sort what a caller gave for one modality.

    Args:
        modality: `"image"`, `"audio"`, …
        value: One raw item or a list of them (pictures as PIL images, clips as `(samples,)` or `(wave, rate)`: bytes, paths
            and URLs are opened before, by the engine's one media door); a mapping of processed tensors; embeddings as a
            tensor or a list of tensors.
    """
    if isinstance(value, Mapping):
        if not value:
            raise InvalidRequestError(f"processed {modality} data is empty", param=f"multi_modal_data.{modality}")
        embeds = value.get(f"{modality}_embeds")
        if embeds is not None:
            return _embeddings(modality, embeds)
        counts = {k: len(v) for k, v in value.items() if hasattr(v, "__len__")}
        return ProcessedItems(modality, value, min(counts.values(), default=1))
    several = isinstance(value, (list, tuple)) and not (modality == "audio" and is_clip(value))
    items = list(value) if several else [value]
    if is_embedding(value) or (items and all(is_embedding(v) for v in items)):
        return _embeddings(modality, value)
    if modality == "image":
        return ImageProcessorItems(modality, [_as_image(i, v) for i, v in enumerate(items)])
    if modality == "audio":
        clips = [v if is_clip(v) else (v, None) for v in items]
        waves = [_as_wave(i, wave) for i, (wave, _) in enumerate(clips)]
        return AudioProcessorItems(modality, waves, [rate for _, rate in clips])
    return RawItems(modality, items)


def _as_wave(index: int, value: Any) -> NDArray[np.float32]:
    described = _describe(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size and value.dtype.kind == "f":
        wave: NDArray[np.float32] = np.ascontiguousarray(value, dtype=np.float32)
        if np.isfinite(wave).all():
            return wave
        described = "one with NaN or infinity"
    raise InvalidRequestError(
        f"audio {index}: a clip is one channel of floats, (samples,), not {described}", param="multi_modal_data.audio"
    )


def _as_image(index: int, value: Any) -> Any:
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    described = _describe(value)
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        array = value
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        if array.dtype != np.uint8:
            raise InvalidRequestError(
                f"image {index}: pixel arrays must be uint8 (0–255), not {array.dtype}", param="multi_modal_data.image"
            )
        if not array.size or array.shape[2:] not in ((), (1,), (3,), (4,)):
            raise InvalidRequestError(
                f"image {index}: pixels are (height, width), (height, width, 3) or (height, width, 4), not {array.shape}",
                param="multi_modal_data.image",
            )
        return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[-1:] == (1,) else array))
    raise InvalidRequestError(f"image {index}: cannot use {described} as a picture", param="multi_modal_data.image")


__all__ = [
    "AudioProcessorItems",
    "EmbeddingItems",
    "ImageEmbeddingItems",
    "ImageProcessorItems",
    "ImageSize",
    "ModalityItems",
    "MultiModalDataItems",
    "ProcessedItems",
    "RawItems",
    "is_embedding",
    "parse_items",
]

"""Whatever a caller gives for a modality, opened."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from sdk.speech import is_clip

from .audio import load_audio
from .audio_limits import CLIP, AudioLimits
from .fetch import MediaFetcher
from .halt import Halt
from .image import MAX_BYTES, PICTURE, load_image
from .source import Kind, is_remote


def load_media(
    modality: str,
    value: Any,
    *,
    allow_paths: bool = True,
    sample_rate: int | None = None,
    audio_limits: AudioLimits | None = None,
    fetcher: MediaFetcher | None = None,
) -> Any:
    """Open what a caller gave for one modality: one item or a list. Tensors and mappings pass through.

    Args:
        modality: Of the items; those that are neither pictures nor clips are the plugin's business.
        value: The items.
        allow_paths: Whether strings may name files.
        sample_rate: What clips are brought to. A wave that comes without a rate is taken to have it already.
        audio_limits: Of each clip.
        fetcher: Gets what stands at `http:` and `https:` URLs; None: nothing does.

    Raises:
        MediaError: An item cannot be used.
    """

    def open_one(item: Any) -> Any:
        if fetcher and isinstance(item, str) and is_remote(item):
            item = fetch_media(fetcher, modality, item, audio_limits)
        if modality == "image":
            return load_image(item, allow_paths=allow_paths)
        if isinstance(item, (np.ndarray, Tensor, dict)):
            return item
        return load_audio(item, sample_rate=sample_rate, limits=audio_limits, allow_paths=allow_paths)

    if modality not in ("image", "audio"):
        return value
    several = isinstance(value, (list, tuple)) and not (modality == "audio" and is_clip(value))
    return [open_one(item) for item in value] if several else open_one(value)


def check_remote(fetcher: MediaFetcher, modality: str, url: str) -> None:
    """Refuse the URL of a picture or clip that `fetch_media` would refuse before it asks anybody.

    Raises:
        MediaForbiddenError: It may not be fetched.
    """
    fetcher.check(url, _bounds(modality)[0])


def fetch_media(
    fetcher: MediaFetcher,
    modality: str,
    url: str,
    audio_limits: AudioLimits | None = None,
    *,
    halt: Halt | None = None,
) -> bytes:
    """The bytes of a picture or clip at a URL; `halt` ends it from another thread.

    Raises:
        MediaError: They may not be fetched, or did not come.
    """
    return fetcher.fetch(url, *_bounds(modality, audio_limits), halt)


def _bounds(modality: str, audio_limits: AudioLimits | None = None) -> tuple[Kind, int]:
    """What a modality's media are called, and how many bytes one may have."""
    if modality == "image":
        return PICTURE, MAX_BYTES
    return CLIP, (audio_limits or AudioLimits()).file_bytes

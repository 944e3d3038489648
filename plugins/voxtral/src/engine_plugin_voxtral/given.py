"""Clips that a caller has processed: what is wrong with them is said before anything is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sdk.errors import InvalidRequestError

FEATURES = "input_features"
"""What HF's processor calls the windows of all clips, `(windows, mel bins, frames)`."""
NUM_WINDOWS = "num_windows"
"""What this plugin calls how many of them each clip has, `(clips,)`."""


def with_windows(clips: Any) -> Any:
    """Processed clips with the number of their windows; whatever else stands for clips is let through.

    Raises:
        InvalidRequestError: The windows are missing or of another form, or their number does not agree.
    """
    if not isinstance(clips, Mapping) or not clips or clips.get("audio_embeds") is not None:
        return clips
    features = clips.get(FEATURES)
    if not isinstance(features, Tensor) or not features.is_floating_point() or features.ndim != 3 or not len(features):
        raise _refused(f"processed clips are a float tensor {FEATURES} of (windows, mel bins, frames), as HF makes it")
    counts = clips.get(NUM_WINDOWS)
    if counts is None:
        return {**clips, NUM_WINDOWS: torch.ones(len(features), dtype=torch.long)}
    if not isinstance(counts, Tensor) or counts.is_floating_point() or counts.ndim != 1:
        raise _refused(f"{NUM_WINDOWS} is an integer tensor, how many windows each clip has")
    if not len(counts) or int(counts.min()) < 1 or int(counts.sum()) != len(features):
        raise _refused(f"{NUM_WINDOWS} says {counts.tolist()}, but there are {len(features)} windows")
    return clips


def _refused(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="multi_modal_data.audio")


__all__ = ["FEATURES", "NUM_WINDOWS", "with_windows"]

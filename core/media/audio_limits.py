"""How much of a clip is taken, and what is wrong with more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .source import Kind

CLIP = Kind("clip", "audio", "audio_url", "invalid_audio", "audio_too_large", "audio/wav")
MIN_RATE, MAX_RATE = 1_000, 384_000
MAX_CHANNELS = 16
MAX_SAMPLES_PER_SECOND = 768_000
"""Of all channels together: with the limit on seconds, this bounds the work that a clip makes."""


@dataclass(frozen=True)
class AudioLimits:
    """Bounds of one clip.

    Attributes:
        seconds: Longest duration.
        file_bytes: Largest file that comes as bytes; one that comes by its path is read in pieces and may have any size.
        decoded_bytes: Most memory for the samples that are kept: float32, one channel, at the model's rate.
    """

    seconds: float = 1800.0
    file_bytes: int = 25 * 2**20
    decoded_bytes: int = 256 * 2**20

    def most_bytes(self, rate: int) -> int:
        """Most memory for the samples of a clip that is kept at this rate."""
        return min(self.decoded_bytes, 4 * math.ceil(self.seconds * rate))


def check_format(rate: float, channels: int) -> None:
    """Refuse what no recording has, whatever wrote it into the header.

    Raises:
        MediaDecodeError: The rate or the number of channels is out of bounds.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise CLIP.damaged(
            f"the clip says that it has {rate:.0f} samples a second; between {MIN_RATE} and {MAX_RATE} are taken"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise CLIP.damaged(f"the clip has {channels} channels; between 1 and {MAX_CHANNELS} are taken")
    if rate * channels > MAX_SAMPLES_PER_SECOND:
        raise CLIP.damaged(
            f"{channels} channels of {rate:.0f} samples a second are more than {MAX_SAMPLES_PER_SECOND} together"
        )

"""From decoded blocks to one channel at one rate: the mean, soxr, and the limits, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaUnsupportedError
from .audio_limits import CLIP, AudioLimits, check_format

QUALITY = "HQ"
"""soxr's name for 20 bits: what it takes by itself, and what other libraries take of it for speech."""


def mixed(
    blocks: Iterable[NDArray[Any]], rate: int, channels: int, out_rate: int | None, limits: AudioLimits
) -> Iterator[NDArray[np.float32]]:
    """The samples that the model hears, in parts; see `Mixer`."""
    mixer = Mixer(rate, channels, out_rate, limits)
    for block in blocks:
        yield mixer.add(block)
    yield mixer.finish()


class Mixer:
    """Takes blocks as they are decoded and gives the samples that the model hears; a limit is met before it is passed.

    Args:
        rate, channels: Of the blocks.
        out_rate: To bring them to; None: as they are.
        limits: Bounds of what is taken and given.

    Raises:
        MediaDecodeError: The rate or the number of channels is out of bounds.
    """

    def __init__(self, rate: int, channels: int, out_rate: int | None, limits: AudioLimits) -> None:
        check_format(rate, channels)
        self.rate, self.channels, self.limits = rate, channels, limits
        self.out_rate = out_rate or rate
        self._stream = _resampler(rate, self.out_rate) if rate != self.out_rate else None
        self._taken = 0
        self._bytes = 0

    def add(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Take a block `(samples, channels)`; what it becomes, `(samples,)`.

        Raises:
            MediaTooLargeError: The clip is longer than the limits.
            MediaDecodeError: A sample is NaN or infinite.
        """
        self._taken += len(block)
        if self._taken > self.limits.seconds * self.rate:
            error = CLIP.excessive(
                f"the clip is longer than {self.limits.seconds:g} seconds; cut it, or raise max_audio_seconds"
            )
            error.code = "audio_too_long"
            raise error
        mono = block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float32)
        mono = np.ascontiguousarray(mono, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise CLIP.damaged("the clip has samples that are NaN or infinite")
        return self._counted(mono if self._stream is None else self._stream.resample_chunk(mono))

    def finish(self) -> NDArray[np.float32]:
        """The last samples.

        Raises:
            MediaDecodeError: There are none.
        """
        if self._taken == 0:
            raise CLIP.damaged("the clip has no sound in it (0 samples)")
        last = np.zeros(0, dtype=np.float32)
        return last if self._stream is None else self._counted(self._stream.resample_chunk(last, last=True))

    def _counted(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._bytes += samples.nbytes
        if self._bytes > self.limits.decoded_bytes:
            raise CLIP.excessive(
                f"the clip has more than {self.limits.decoded_bytes // 2**20} MiB when it is decoded to {self.out_rate} "
                "samples a second; cut it"
            )
        return samples


def _resampler(rate: int, out_rate: int) -> Any:
    try:
        import soxr
    except ImportError as e:
        raise MediaUnsupportedError(
            f"a clip of {rate} samples a second must be brought to {out_rate}, which needs soxr: "
            "pip install 'engine-plugin-sdk[audio]'",
            code="unsupported_audio",
            param="audio",
        ) from e
    return soxr.ResampleStream(rate, out_rate, 1, dtype="float32", quality=QUALITY)

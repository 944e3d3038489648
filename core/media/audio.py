"""Clips: from bytes, paths, data: URIs or (wave, rate) to one channel of float32, within limits that hold while decoding.

Channels are mixed by their mean, rates are brought to the model's by soxr. A small file may hold hours of silence, and a
header may say anything: nothing is believed of it but the rate and the number of channels, and these within bounds. What is
to be decoded is decoded in another process (`audio_pool`); waves are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdk.speech import is_clip

from .audio_limits import CLIP, AudioLimits
from .audio_mix import mixed
from .audio_pool import decoders
from .source import is_url, open_path, read_url

Wave = NDArray[np.float32]
_BLOCK = 1 << 20
"""Samples of a given array that are mixed at a time."""


class AudioClip(NamedTuple):
    """A clip as models take it.

    Attributes:
        wave: `(samples,)` float32; full scale is -1 to 1.
        rate: Samples a second.
    """

    wave: Wave
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.wave) / self.rate


def load_audio(
    value: Any, *, sample_rate: int | None = None, limits: AudioLimits | None = None, allow_paths: bool = True
) -> AudioClip:
    """Open one clip.

    Args:
        value: Bytes of a file that libsndfile or FFmpeg reads (`audio_decode`), a path, a `data:` URI, or `(wave, rate)` with a
            wave `(samples,)`, `(channels, samples)` or `(samples, channels)` of floats or whole numbers.
        sample_rate: The rate to bring it to; None: as it is.
        limits: None: the default ones.
        allow_paths: Whether strings may name files: true for the embedder's own calls, false for what a client sends.

    Raises:
        MediaError: It is no sound, too long, of a format or from a place that is not allowed.
    """
    limits = limits or AudioLimits()
    if is_clip(value):
        return _from_array(value[0], _given_rate(value[1]), sample_rate, limits)
    if isinstance(value, Path) or (isinstance(value, str) and allow_paths and not is_url(value)):
        path = Path(value).expanduser()
        open_path(path, CLIP).close()  # what is wrong with it is said of the path as it was given
        return AudioClip(*decoders().decode(path.absolute(), sample_rate, limits))
    if isinstance(value, str):
        value = read_url(value, CLIP, limits.file_bytes)
    if isinstance(value, (bytes, bytearray, memoryview)):
        if memoryview(value).nbytes > limits.file_bytes:
            raise CLIP.excessive(
                f"the clip has more than {limits.file_bytes // 2**20} MiB; a file of any size may be given by its path"
            )
        return AudioClip(*decoders().decode(bytes(value), sample_rate, limits))
    raise CLIP.damaged(
        f"a clip is bytes, a path, a data: URI or (wave, rate), not a {type(value).__name__}; a wave by itself does not "
        "say how fast it is"
    )


def _from_array(given: Any, rate: int, sample_rate: int | None, limits: AudioLimits) -> AudioClip:
    block = _as_float(given)
    if block.ndim == 2:
        # Both orders are in use, and channels are few where samples are many.
        block = block if block.shape[0] >= block.shape[1] else block.T
    channels = block.shape[1] if block.ndim == 2 else 1
    samples = block.reshape(-1, channels)

    def blocks() -> Iterator[NDArray[Any]]:
        for first in range(0, len(samples), _BLOCK):
            yield samples[first : first + _BLOCK]

    return AudioClip(np.concatenate(list(mixed(blocks(), rate, channels, sample_rate, limits))), sample_rate or rate)


def _as_float(given: Any) -> NDArray[Any]:
    """A wave of floats, or of whole numbers whose full scale is their type's."""
    if hasattr(given, "detach"):
        given = given.detach().cpu().float().numpy() if given.is_floating_point() else given.detach().cpu().numpy()
    try:
        wave = np.asarray(given)
    except (ValueError, TypeError) as e:
        raise CLIP.damaged("the wave is no array of numbers") from e
    if wave.ndim not in (1, 2) or wave.dtype.kind not in "fiu":
        raise CLIP.damaged(f"a wave is (samples,) or (channels, samples) of numbers, not {wave.dtype} {wave.shape}")
    if wave.dtype.kind == "f":
        return wave
    if not isinstance(given, np.ndarray) and wave.dtype.itemsize == 8:
        return wave.astype(np.float32)  # a list of numbers that happen to be whole
    half = np.float32(2.0 ** (8 * wave.dtype.itemsize - 1))
    return (wave.astype(np.float32) - (half if wave.dtype.kind == "u" else 0)) / half


def _given_rate(rate: Any) -> int:
    if isinstance(rate, Real) and not isinstance(rate, bool) and float(rate).is_integer():
        return int(float(rate))
    raise CLIP.damaged(f"a rate is a whole number of samples a second, not {rate!r:.40}")

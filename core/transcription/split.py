"""Where a clip that is longer than a model takes at once is cut: at the quietest place of its last second or so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sdk.speech import SpeechToTextConfig

STEPS_PER_WINDOW = 4
"""Loudness is measured this often on the way of a window's length."""


class Chunk(NamedTuple):
    """Samples `start … stop - 1` of a clip."""

    start: int
    stop: int


def split_audio(wave: NDArray[np.float32], config: SpeechToTextConfig) -> list[Chunk]:
    """The pieces of a clip, end to end: every sample is in exactly one.

    While more than `max_audio_clip_s` is left, the next piece ends within its last `overlap_chunk_second`: in the middle of
    the window of `min_energy_split_window_size` samples with the least sum of squares. Windows start at every quarter of
    their length; of equally quiet ones the last is taken, which makes the longest piece.

    Args:
        wave: `(samples,)` at `config.sample_rate`.
        config: How the model takes clips; one that cuts by itself gets the clip whole.
    """
    if config.max_audio_clip_s is None or config.min_energy_split_window_size is None:
        return [Chunk(0, len(wave))]
    longest = int(config.max_audio_clip_s * config.sample_rate)
    search = int(config.overlap_chunk_second * config.sample_rate)
    chunks, start = [], 0
    while len(wave) - start > longest:
        end = start + longest
        cut = end - search + _quietest(wave[end - search : end], config.min_energy_split_window_size)
        chunks.append(Chunk(start, cut))
        start = cut
    return [*chunks, Chunk(start, len(wave))]


def _quietest(samples: NDArray[np.float32], window: int) -> int:
    """The middle of the quietest window, counted from the first sample."""
    step = max(1, window // STEPS_PER_WINDOW)
    windows = sliding_window_view(samples.astype(np.float64), window)[::step]
    energy = np.einsum("ij,ij->i", windows, windows)
    last_of_least = len(energy) - 1 - int(energy[::-1].argmin())
    return last_of_least * step + window // 2

"""Sounds made by arithmetic, and files of them."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Wave = NDArray[np.float32]


def tones(seconds: float, rate: int, channels: int = 2) -> Wave:
    """`(samples, channels)`: a tone in each channel, all below 1.5 kHz so that no filter of a resampler touches them."""
    t = np.arange(round(seconds * rate)) / rate
    waves = [(0.5 - 0.1 * c) * np.sin(2 * np.pi * (220 + 400 * c) * t + c) for c in range(channels)]
    return np.stack(waves, axis=1).astype(np.float32)


def sweep(seconds: float, rate: int) -> Wave:
    """`(samples, 2)`: one rising tone, louder in the first channel."""
    t = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * (150 + 300 * t) * t)
    return np.stack([0.6 * wave, 0.3 * wave], axis=1).astype(np.float32)


def written(wave: Any, rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """A file that libsndfile writes."""
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


def muxed(wave: Wave | None, rate: int, container: str, codec: str, *, video: bool = False) -> bytes:
    """A file that FFmpeg's libraries write: sound, a black picture of one second, or both."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        picture = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p") if video else None
        sound = file.add_stream(codec, rate=rate, layout="stereo") if wave is not None else None
        if picture is not None:
            black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
            for frame in (*[black] * 10, None):
                file.mux(picture.encode(frame))
        if sound is not None:
            given = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout="stereo")
            given.sample_rate = rate
            size = sound.codec_context.frame_size or None
            fit = av.AudioResampler(format=sound.format, layout="stereo", rate=rate, frame_size=size)
            for part in (*fit.resample(given), *fit.resample(None), None):
                file.mux(sound.encode(part))
    return out.getvalue()


def write_silence_in_opus(path: Path, seconds: int) -> None:
    """A small file of much silence: 120 ms are encoded once, and their packet is written again and again."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.options = (
        48_000,
        "mono",
        "flt",
        {"frame_duration": "120"},
    )
    encoder.bit_rate = 1000
    encoder.open()
    quiet = av.AudioFrame.from_ndarray(np.zeros((1, encoder.frame_size), np.float32), format="flt", layout="mono")
    quiet.sample_rate = 48_000
    packet = bytes(next(found for _ in range(9) for found in encoder.encode(quiet)))
    with av.open(path, "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        for start in range(0, seconds * 48_000, encoder.frame_size):
            again = av.Packet(packet)
            again.stream, again.time_base = stream, Fraction(1, 48_000)
            again.pts = again.dts = start
            again.duration = encoder.frame_size
            file.mux(again)


def write_silence_in_flac(path: Path, seconds: int) -> None:
    """As much in the other format that makes little of it."""
    second = np.zeros((8000, 1), dtype=np.int16)
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(seconds):
            file.write(second)

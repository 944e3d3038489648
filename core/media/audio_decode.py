"""Files of sound → blocks of samples. libsndfile is asked first; what it does not know, FFmpeg's libraries may.

Both see a file object and never a name, so that no name means a protocol, and FFmpeg is told which format the first bytes
are of: some of its readers follow references to other files, and those are not asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, MediaUnsupportedError
from .audio_limits import CLIP, check_format

BLOCK_SAMPLES = 1 << 17
"""Samples of all channels in a block that libsndfile reads."""
EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC")
"""Formats whose header says how many samples there are: fewer mean a file that was cut."""
_FFMPEG_FORMATS = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"caff", "caf"),
    (0, b"FORM", "aiff"),
    (8, b"WAVE", "wav"),
    (8, b"AVI ", "avi"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"#!AMR", "amr"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"G@", "mpegts"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xfa", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (0, b"\x0bw", "ac3"),  # E-AC-3, too
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    *((0, bytes((0x56, 0xE0 | bits)), "loas") for bits in range(32)),  # LATM: a mark of eleven bits
)
"""Where a format's mark stands, the mark, and what FFmpeg calls the format."""
_CHUNKED: dict[str, tuple[bytes, Literal["little", "big"]]] = {
    "WAV": (b"data", "little"),
    "WAVEX": (b"data", "little"),
    "AIFF": (b"SSND", "big"),
}
"""libsndfile's name of a format that is a list of chunks → the one with the samples, and the order of its bytes."""
_STREAMED_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""What writers that cannot go back put for a size that they do not know yet."""


class AudioSource(NamedTuple):
    """An opened file.

    Attributes:
        rate, channels: As its header says.
        blocks: Samples in order, `(samples, channels)` float32.
    """

    rate: int
    channels: int
    blocks: Iterator[NDArray[np.float32]]


@contextmanager
def open_decoder(file: BinaryIO) -> Iterator[AudioSource]:
    """Open a file, whatever its format.

    Raises:
        MediaDecodeError: It is empty, no sound, damaged or cut.
        MediaUnsupportedError: Nothing that is installed reads it.
    """
    head = file.read(64)
    if not head:
        raise CLIP.damaged("the clip is empty (0 bytes)")
    file.seek(0)
    ffmpeg_format = next((name for at, mark, name in _FFMPEG_FORMATS if head[at : at + len(mark)] == mark), None)
    with contextlib.ExitStack() as stack:
        try:
            source = _open_sndfile(file, stack)
            if source is None:
                file.seek(0)
                source = _open_ffmpeg(file, ffmpeg_format, stack)
            yield source
        except EngineError:
            raise
        except Exception as e:  # a parser of outside bytes fails in many ways, and its messages hold addresses
            raise _damaged() from e


def _open_sndfile(file: BinaryIO, stack: contextlib.ExitStack) -> AudioSource | None:
    """By libsndfile, or None where it does not know the format."""
    try:
        import soundfile
    except ImportError:
        return None  # FFmpeg may be there
    except OSError as e:  # the wheel without its library
        raise _not_installed("soundfile cannot load libsndfile") from e
    try:
        sound = stack.enter_context(soundfile.SoundFile(file))
    except soundfile.LibsndfileError:
        return None
    check_format(sound.samplerate, sound.channels)
    if sound.format in _CHUNKED and _samples_are_cut(file, *_CHUNKED[sound.format]):
        raise _damaged()
    return AudioSource(int(sound.samplerate), int(sound.channels), _sndfile_blocks(sound))


def _sndfile_blocks(sound: Any) -> Iterator[NDArray[np.float32]]:
    expected, read = sound.frames, 0
    while True:
        block = sound.read(BLOCK_SAMPLES // sound.channels, dtype="float32", always_2d=True)
        if not len(block):
            break
        read += len(block)
        yield block
    exact = sound.format in EXACT_FORMATS and not sound.subtype.startswith("MPEG")  # of MP3, decoders leave out a few
    if exact and read < expected:
        raise _damaged()


def _samples_are_cut(file: BinaryIO, name: bytes, order: Literal["little", "big"]) -> bool:
    """Whether a file ends before its chunk of samples does; libsndfile passes over that in silence.

    Args:
        name: Of the chunk.
        order: Of the bytes of a chunk's size.
    """
    at = file.tell()
    try:
        end = file.seek(0, os.SEEK_END)
        position = 12
        while position + 8 <= end:
            file.seek(position)
            header = file.read(8)
            size = int.from_bytes(header[4:], order)
            if header[:4] == name:
                return size not in _STREAMED_SIZES and position + 8 + size > end
            position += 8 + size + size % 2
        return False
    finally:
        file.seek(at)


def _open_ffmpeg(file: BinaryIO, name: str | None, stack: contextlib.ExitStack) -> AudioSource:
    """By FFmpeg's libraries, for a format that the first bytes tell."""
    if name is None:
        raise CLIP.damaged("these bytes are not a clip of a known format, such as WAV, FLAC, MP3, OGG, M4A or WebM")
    try:
        import av
    except ImportError as e:
        raise _not_installed(f"clips of this format ({name}) are read by PyAV") from e
    container = stack.enter_context(
        av.open(file, mode="r", format=name, metadata_errors="ignore", options={"protocol_whitelist": ""})
    )
    if not container.streams.audio:
        kinds = "a video without sound" if container.streams.video else "a file without sound"
        raise CLIP.damaged(f"this is {kinds}: it has no audio stream")
    stream = container.streams.audio[0]
    check_format(stream.rate or 0, stream.channels or 0)
    return AudioSource(stream.rate, stream.channels, _ffmpeg_blocks(av, container, stream))


def _ffmpeg_blocks(av: Any, container: Any, stream: Any) -> Iterator[NDArray[np.float32]]:
    to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    expected, read = _seconds_said(av, container, stream), 0
    for frame in container.decode(stream):
        if (frame.sample_rate, len(frame.layout.channels)) != (stream.rate, stream.channels):
            raise CLIP.damaged("the clip changes its rate or its channels on the way, which is not taken")
        for part in to_float.resample(frame):
            block = part.to_ndarray().T
            read += len(block)
            yield block
    if expected is not None and read < (expected - 0.5) * 0.98 * stream.rate:
        raise _damaged()


def _seconds_said(av: Any, container: Any, stream: Any) -> float | None:
    """How long the clip is by its header, where the header knows."""
    formats = set(container.format.name.split(","))
    if "mov" in formats and stream.duration is not None:
        return float(stream.duration * stream.time_base)
    only_sound = len(container.streams) == 1
    if "matroska" in formats and only_sound and container.duration is not None:
        return float(container.duration / av.time_base)
    return None


def _damaged() -> EngineError:
    return CLIP.damaged("the clip is damaged or truncated")


def _not_installed(what: str) -> MediaUnsupportedError:
    return MediaUnsupportedError(
        f"{what}, which is not installed: pip install 'engine-plugin-sdk[audio]'",
        code="unsupported_audio",
        param="audio",
    )

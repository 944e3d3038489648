"""The door for clips: every form a caller may give, every way it may be wrong."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from core.errors import MediaDecodeError, MediaError, MediaForbiddenError, MediaTooLargeError, MediaUnsupportedError
from core.media import audio_decode
from core.media.audio import load_audio
from core.media.audio_child import decoded
from core.media.audio_limits import MAX_CHANNELS, MAX_RATE, AudioLimits

from .sounds import muxed, sweep, tones, write_silence_in_flac, write_silence_in_opus, written

LEAKS = re.compile(r"0x[0-9a-f]{4,}|Traceback|site-packages|BytesIO|libsndfile|[Ee]rrno")
RATE = 16_000


def reference(wave: Any, rate: int) -> Any:
    """What the model should hear: the mean of the channels, resampled in one piece."""
    mono = wave.mean(axis=1)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE)


# ---- what is heard -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    ("kind", "subtype", "bits"),
    [("WAV", "PCM_U8", 8), ("WAV", "PCM_16", 16), ("WAV", "PCM_24", 24), ("WAV", "FLOAT", 24), ("FLAC", "PCM_16", 16),
     ("AIFF", "PCM_32", 24)],
)  # fmt: skip
def test_R039_files_are_the_mean_of_their_samples_resampled(
    kind: str, subtype: str, bits: int, rate: int, channels: int
) -> None:
    data, wave = written(tones(1.3, rate, channels), rate, kind, subtype), tones(1.3, rate, channels)
    heard = load_audio(data, sample_rate=RATE)
    assert heard.rate == RATE
    stored = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)[0]
    np.testing.assert_allclose(stored, wave, atol=2.0 ** (2 - bits))
    expected = reference(stored, rate)
    assert abs(len(heard.wave) - len(expected)) <= 1
    n = min(len(heard.wave), len(expected))
    np.testing.assert_allclose(heard.wave[:n], expected[:n], atol=1e-4)
    assert heard.wave.dtype == np.float32
    assert heard.seconds == pytest.approx(1.3, abs=1e-3)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 44_100),
        ("ipod", "aac", 48_000),
        ("mov", "pcm_s16le", 44_100),
        ("webm", "libopus", 48_000),
        ("matroska", "aac", 44_100),
        ("ogg", "libopus", 48_000),
        ("mp3", "mp3", 44_100),
        ("adts", "aac", 44_100),
        ("mpegts", "aac", 44_100),
        ("flv", "aac", 44_100),
        ("avi", "mp3", 44_100),
        ("wav", "mp3", 44_100),
        ("ac3", "ac3", 48_000),
        ("eac3", "eac3", 48_000),
        ("wv", "wavpack", 44_100),
        ("tta", "tta", 44_100),
        ("latm", "aac", 44_100),
    ],
)
def test_R039_lossy_files_sound_like_their_source(container: str, codec: str, rate: int) -> None:
    wave = sweep(2.0, rate)
    heard = load_audio(muxed(wave, rate, container, codec), sample_rate=RATE).wave
    expected = reference(wave, rate)
    # Encoders put a few hundredths of a second in front; where they do, the best fit is that much later.
    likeness = np.correlate(heard[: RATE + 4000].astype(np.float64), expected[2000:RATE], mode="valid")
    lag = int(likeness.argmax()) - 2000
    assert -200 < lag < 0.1 * RATE
    piece = heard[lag + 4000 : lag + 20_000]
    assert np.sqrt(np.mean((piece - expected[4000:20_000]) ** 2)) < 0.05
    assert len(heard) / RATE == pytest.approx(2.0, abs=0.1)


def test_a_video_with_sound_is_its_sound() -> None:
    clip = load_audio(muxed(tones(2.0, 44_100), 44_100, "mp4", "aac", video=True), sample_rate=RATE)
    assert clip.seconds == pytest.approx(2.0, abs=0.1)


def test_without_a_rate_to_bring_it_to_a_clip_keeps_its_own() -> None:
    clip = load_audio(written(tones(0.5, 22_050, 1), 22_050))
    assert (clip.rate, len(clip.wave)) == (22_050, 11_025)


def test_every_form_of_one_file_sounds_the_same(tmp_path: Path) -> None:
    data = written(tones(0.5, 44_100), 44_100)
    (tmp_path / "clip.wav").write_bytes(data)
    text = base64.encodebytes(data).decode()
    forms = (data, bytearray(data), memoryview(data), tmp_path / "clip.wav", str(tmp_path / "clip.wav"))
    heard = [
        load_audio(v, sample_rate=RATE).wave for v in (*forms, f"data:audio/wav;base64,{text}", f" DATA:;BASE64,{text}")
    ]
    for wave in heard[1:]:
        np.testing.assert_array_equal(wave, heard[0])


@pytest.mark.parametrize(
    "given",
    [
        tones(1, RATE),
        tones(1, RATE).T,
        tones(1, RATE).astype(np.float64),
        np.round(tones(1, RATE) * 32767).astype(np.int16),
        np.round(tones(1, RATE) * (2**31 - 1)).astype(np.int32),
        torch.from_numpy(tones(1, RATE).T.copy()),
        torch.from_numpy(tones(1, RATE).copy()).double(),
        tones(1, RATE).tolist(),
    ],
    ids=["samples-first", "channels-first", "float64", "int16", "int32", "tensor", "float64-tensor", "list"],
)
def test_a_wave_and_its_rate_in_every_form(given: Any) -> None:
    heard = load_audio((given, RATE), sample_rate=RATE).wave
    np.testing.assert_allclose(heard, tones(1, RATE).mean(axis=1), atol=1e-4)
    assert heard.flags.c_contiguous


def test_unsigned_bytes_are_silent_in_their_middle() -> None:
    heard = load_audio((np.array([0, 128, 255], dtype=np.uint8), 8000)).wave
    np.testing.assert_allclose(heard, [-1, 0, 127 / 128])


def test_a_long_wave_is_resampled_as_in_one_piece() -> None:
    wave = tones(70, 44_100, 1)
    heard = load_audio((wave[:, 0], 44_100), sample_rate=RATE).wave
    np.testing.assert_allclose(heard, reference(wave, 44_100), atol=1e-4)


def test_one_sample_is_a_clip() -> None:
    assert load_audio((np.ones(1, dtype=np.float32), RATE), sample_rate=RATE).wave.tolist() == [1.0]


# ---- what is wrong -------------------------------------------------------------------------------------------------


def refused(value: Any, code: str, **options: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load_audio(value, sample_rate=RATE, **options)
    assert caught.value.code == code
    assert not LEAKS.search(str(caught.value)), str(caught.value)
    assert caught.value.param is not None
    return caught.value


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"\0" * 5000, b"<html>no</html>", b"#EXTM3U\nfile:///etc/passwd\n", b"ID3\4\0\0\0\0\0\0" * 9]
)
def test_R038_bytes_that_are_no_sound(data: bytes) -> None:
    refused(data, "invalid_audio")


def test_R038_a_playlist_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(written(tones(0.2, RATE), RATE))
    lists = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/clip.wav\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/clip.wav'\n",
    )
    for text in lists:
        (tmp_path / "list.m3u8").write_text(text)
        for value in (text.encode(), tmp_path / "list.m3u8"):
            refused(value, "invalid_audio")


FILES = {
    "wav": written(tones(2, RATE), RATE),
    "flac": written(tones(2, RATE), RATE, "FLAC"),
    "aiff": written(tones(2, RATE), RATE, "AIFF"),
    "mp4": muxed(tones(2, 44_100), 44_100, "mp4", "aac"),
    "webm": muxed(tones(2, 48_000), 48_000, "webm", "libopus"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_R038_a_file_that_was_cut_is_an_error(name: str, share: float) -> None:
    data = FILES[name]
    refused(data[: int(len(data) * share)], "invalid_audio")


@pytest.mark.parametrize("name", FILES)
def test_R038_a_damaged_file_is_an_error_or_a_clip(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(FILES[name])
        for at in rng.integers(0, len(data) // 8, 12):
            data[at] = rng.integers(256)
        try:
            assert np.isfinite(load_audio(bytes(data), sample_rate=RATE).wave).all()
        except MediaError as e:
            error = str(e)
        else:
            error = ""
        assert not LEAKS.search(error), error


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_whose_writer_did_not_know_its_length_is_taken(size: int) -> None:
    data = bytearray(written(tones(1, RATE, 1), RATE))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = size.to_bytes(4, "little")
    if size:  # libsndfile takes a size of 0 at its word
        assert load_audio(bytes(data)).seconds == 1.0
    else:
        refused(bytes(data), "invalid_audio")


def test_R038_a_video_without_sound() -> None:
    error = refused(muxed(None, 0, "mp4", "", video=True), "invalid_audio")
    assert "a video without sound" in str(error)


@pytest.mark.parametrize("rate", [1, 999, MAX_RATE + 1, 2**31 - 1])
def test_R038_a_forged_rate(rate: int) -> None:
    data = bytearray(FILES["wav"])
    data[24:28] = rate.to_bytes(4, "little")
    for value in (bytes(data), (np.zeros(100), rate)):
        assert "samples a second" in str(refused(value, "invalid_audio"))


def test_R038_256_channels() -> None:
    assert "256 channels" in str(refused(written(np.zeros((10, 256)), 8000), "invalid_audio"))
    assert "256 channels" in str(refused((np.zeros((1000, 256)), 8000), "invalid_audio"))
    assert load_audio(written(np.zeros((10, MAX_CHANNELS)), 8000)).rate == 8000
    assert "together" in str(refused((np.zeros((1000, MAX_CHANNELS)), 96_000), "invalid_audio"))


def test_R038_no_samples() -> None:
    for value in (written(np.zeros((0, 1)), RATE), written(np.zeros((0, 2)), RATE, "FLAC"), (np.zeros(0), RATE)):
        refused(value, "invalid_audio")


def test_R038_a_forged_number_of_frames() -> None:
    data = bytearray(FILES["flac"])
    data[22:26] = b"\xff" * 4  # the low 32 bits of STREAMINFO's count of samples
    refused(bytes(data), "invalid_audio")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(bad: float) -> None:
    wave = tones(0.1, RATE, 1)
    wave[50] = bad
    for value in (written(wave, RATE, subtype="FLOAT"), (wave, RATE)):
        assert "NaN" in str(refused(value, "invalid_audio"))


@pytest.mark.parametrize(
    "value", [None, 5, object(), [1, 2], np.zeros(100), ("a", RATE), (np.zeros((2, 2, 2)), RATE), (["x"], RATE),
              ([[1], [1, 2]], RATE), (np.zeros(9), 0.5), (np.zeros(9), True), (np.zeros(9), float("nan"))]
)  # fmt: skip
def test_values_that_are_no_clip(value: Any) -> None:
    refused(value, "invalid_audio")


# ---- limits and places ---------------------------------------------------------------------------------------------


def test_R038_longer_than_the_limit_while_decoding() -> None:
    limits = AudioLimits(seconds=1.5)
    for value in (*FILES.values(), (tones(2, RATE), RATE)):
        error = refused(value, "audio_too_long", limits=limits)
        assert isinstance(error, MediaTooLargeError)
        assert "1.5 seconds" in str(error)
    assert load_audio(FILES["wav"], limits=AudioLimits(seconds=2)).seconds == 2.0


def test_R038_more_memory_than_the_limit_while_decoding() -> None:
    refused(FILES["flac"], "audio_too_large", limits=AudioLimits(decoded_bytes=4 * RATE))
    assert load_audio(FILES["flac"], limits=AudioLimits(decoded_bytes=8 * RATE)).seconds == 2.0


def test_R038_bytes_over_the_limit_are_not_decoded(tmp_path: Path) -> None:
    limits, data = AudioLimits(file_bytes=2**20), written(tones(20, RATE), RATE)
    uri = "data:;base64," + base64.b64encode(data).decode()
    for value in (data, bytearray(data), uri):
        assert "more than 1 MiB" in str(refused(value, "audio_too_large", limits=limits))
    (tmp_path / "long.wav").write_bytes(data)
    assert load_audio(tmp_path / "long.wav", limits=limits).seconds == 20.0


BOMB = """
import resource, sys
from pathlib import Path
from core.media.audio import load_audio
from core.errors import MediaTooLargeError

def peak():  # in KiB; the system's other number begins with what the parent held
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))

load_audio((__import__("numpy").zeros(9000), 44100), sample_rate=16000)
before = peak()
try:
    load_audio(sys.argv[1], sample_rate=16000)
except MediaTooLargeError as e:
    print(e.code, (peak() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("write", "mebibytes_at_most"), [(write_silence_in_flac, 1), (write_silence_in_opus, 2)], ids=["flac", "opus"]
)
def test_R038_hours_of_silence_in_a_small_file_fill_no_memory(
    tmp_path: Path, write: Callable[[Path, int], None], mebibytes_at_most: int
) -> None:
    path = tmp_path / "silence"
    write(path, 8 * 60 * 60)
    assert path.stat().st_size < mebibytes_at_most * 2**20
    made = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    code, mebibytes = made.stdout.split()
    assert code == "audio_too_long"
    assert int(mebibytes) < 200  # half an hour at 16 kHz is 110; all of it would be 1760


@pytest.mark.parametrize("name", ["nowhere.wav", "a\0b", "x" * 5000, "."])
def test_paths_that_are_no_clips_say_why_in_few_words(name: str) -> None:
    with pytest.raises(MediaDecodeError, match="cannot be read: ") as caught:
        load_audio(name)
    assert len(str(caught.value)) < 400


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaDecodeError, match="it is no file"):
        load_audio(tmp_path / "pipe")


def test_R033_no_url_is_fetched(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(FILES["wav"])
    for url in ("http://localhost/x.wav", "https://h/x", f"file://{path}", "concat:a|b", "rtmp://h"):
        with pytest.raises(MediaForbiddenError, match="clips are not fetched"):
            load_audio(url)
    with pytest.raises(MediaError):
        load_audio(str(path), allow_paths=False)


@pytest.mark.parametrize("rest", ["audio/wav;base64", "audio/wav,abc", ";base64,%%%", ";base64,QQ", ";base64,", ""])
def test_data_uris_that_are_none(rest: str) -> None:
    refused("data:" + rest, "invalid_audio")


# ---- without the extra ---------------------------------------------------------------------------------------------


def heard_here(data: bytes) -> float:
    """Seconds of a clip that is decoded in this process, whose libraries can be hidden."""
    with decoded(io.BytesIO(data), RATE, AudioLimits()) as found:
        return sum(len(part) for part in found.parts) / found.rate


def test_R039_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, open_clip in (
        ("av", lambda: heard_here(FILES["mp4"])),
        ("soxr", lambda: load_audio((tones(0.1, 8000), 8000), sample_rate=RATE)),
    ):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(MediaUnsupportedError, match=r"pip install 'engine-plugin-sdk\[audio\]'") as caught:
            open_clip()
        assert caught.value.code == "unsupported_audio"
        assert not LEAKS.search(str(caught.value))


def test_without_soundfile_the_other_library_reads_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for name in ("wav", "flac", "mp4"):
        assert heard_here(FILES[name]) == pytest.approx(2.0, abs=0.1)


def test_a_wave_at_the_models_rate_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("soundfile", "av", "soxr"):
        monkeypatch.setitem(sys.modules, missing, None)
    assert load_audio((tones(0.5, RATE), RATE), sample_rate=RATE).seconds == 0.5


def test_the_first_bytes_tell_every_format_that_is_handed_on() -> None:
    known = {name for _, _, name in audio_decode._FFMPEG_FORMATS}
    assert not known & {"hls", "concat", "dash", "image2", "sdp", "rtsp", "applehttp"}
    assert io.BytesIO(FILES["mp4"]).read(8)[4:] == b"ftyp"

"""Whisper and files: ten minutes of them, bad ones among good ones, and callers who ask for what it does not do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from engine_plugin_whisper import tiny
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from core import LLM, AsyncLLM
from core.errors import InvalidRequestError, MediaError
from core.media.audio import load_audio
from core.transcription.result import Transcription
from core.transcription.split import split_audio
from sdk.speech import SpeechToTextConfig
from sdk.testing.tiny import save_tiny

from ..speech.sounds import muxed, tones, written

RATE = 16_000
SHORT = 12
"""Longest sequence: a random model seldom ends its text, and this is enough of it."""
OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "max_model_len": SHORT, "disable_progress": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper")
    tiny.whisper(0, path)
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), **OPTIONS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model doubts everything it says, and what is drawn anew differs each time: here it is believed."""
    monkeypatch.setattr("engine_plugin_whisper.transcription.DecodingFallback", lambda: None)


def noise(seed: int, seconds: float) -> NDArray[np.float32]:
    """Noise whose loudness and colour change."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    loudness = np.abs(np.sin(t * 1.7) * np.sin(t * 0.23 + seed))
    hum = np.sin(2 * np.pi * t * (200 + 150 * np.sin(t * 0.4)))
    made: NDArray[np.float32] = ((rng.standard_normal(len(t)) * 0.2 + 0.3 * hum) * loudness).astype(np.float32)
    return made


def said(transcription: Transcription) -> list[tuple[Any, ...]]:
    """What was said when; log-probabilities differ in their last digits with the company."""
    return [(s.text, s.tokens, s.start, s.end) for s in transcription.segments]


@pytest.fixture
def hears_longer(tmp_path: Path) -> Iterator[LLM]:
    """The tiny checkpoint, for clips of ten seconds."""
    tokenizer = tiny.whisper_tokenizer(seconds=10)
    processor = WhisperProcessor(WhisperFeatureExtractor(chunk_length=10), tokenizer)
    save_tiny(
        WhisperForConditionalGeneration(tiny.whisper_config(tokenizer, max_source_positions=500)),
        tmp_path / "model",
        seed=0,
        processor=processor,
        generation_config={**tiny.generation_entries(tokenizer), "_from_model_config": False},
        gains=tiny.GAINS,
    )
    with LLM(str(tmp_path / "model"), **OPTIONS) as opened:
        yield opened


def test_ten_minutes_in_pieces_are_the_pieces_alone(hears_longer: LLM, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.flac", noise(0, 600), RATE, subtype="PCM_16")
    whole = hears_longer.transcribe(tmp_path / "talk.flac", language="en")
    assert whole.duration == 600
    wave = load_audio(tmp_path / "talk.flac", sample_rate=RATE).wave
    chunks = split_audio(wave, SpeechToTextConfig(RATE, 10.0))
    assert 60 < len(chunks) == len(whole.segments)
    alone = [hears_longer.transcribe((wave[c.start : c.stop], RATE), language="en") for c in chunks]
    assert [s.tokens for s in whole.segments] == [t.segments[0].tokens for t in alone]
    assert [s.text.strip() for s in whole.segments] == [t.text for t in alone]
    assert "".join(whole.text.split()) == "".join("".join(t.text.split()) for t in alone)
    assert [s.start for s in whole.segments] == pytest.approx([c.start / RATE for c in chunks])
    assert [s.end for s in whole.segments] == pytest.approx([c.stop / RATE for c in chunks])
    assert len({s.tokens for s in whole.segments}) > 10


def forged_rate(rate: int) -> bytes:
    data = bytearray(written(tones(1, RATE), RATE))
    data[24:28] = rate.to_bytes(4, "little")
    return bytes(data)


@cache
def bad_files() -> dict[str, tuple[bytes, str]]:
    """Files that are no clips, and the code of the error; made when they are asked for, as the hours take seconds."""
    return {
        "0 bytes": (b"", "invalid_audio"),
        "no sound": (b"<html>no</html>", "invalid_audio"),
        "truncated": (written(tones(2, RATE), RATE, "FLAC")[:9000], "invalid_audio"),
        "truncated video": (muxed(tones(2, 44_100), 44_100, "mp4", "aac")[:9000], "invalid_audio"),
        "video without sound": (muxed(None, 0, "mp4", "", video=True), "invalid_audio"),
        "256 channels": (written(np.zeros((9000, 256)), 8000), "invalid_audio"),
        "forged rate": (forged_rate(2**31 - 1), "invalid_audio"),
        "no samples": (written(np.zeros((0, 1)), RATE), "invalid_audio"),
        "hours of silence": (written(np.zeros((8 * 3600 * 8000, 1), np.int16), 8000, "FLAC"), "audio_too_long"),
    }


def held_at_most(*, since_now: bool = False) -> int:
    """MiB that this process has held, since it began or was asked to forget; 0 where the system does not tell."""
    proc = Path("/proc/self")
    if not (proc / "clear_refs").exists():
        return 0
    if since_now:
        (proc / "clear_refs").write_text("5")
    return next(int(x.split()[1]) for x in (proc / "status").read_text().splitlines() if x.startswith("VmHWM:")) // 1024


def test_R038_bad_files_among_good_ones(llm: LLM) -> None:
    good = [written(noise(seed, 3.0), RATE, subtype="FLOAT") for seed in range(len(bad_files()))]
    expected = [llm.transcribe(data, language="en") for data in good]
    mixed = [data for pair in zip(good, (data for data, _ in bad_files().values())) for data in pair]
    before = held_at_most(since_now=True)
    made = llm.transcribe(mixed, language="en", on_error="return")
    assert held_at_most() - before < 200  # half an hour is 110 MiB
    assert [said(t) for t in made[::2]] == [said(t) for t in expected]
    for name, found, (_, code) in zip(bad_files(), made[1::2], bad_files().values()):
        assert isinstance(found.error, MediaError), name
        assert (found.error.code, found.error.status in (400, 413)) == (code, True), name
        assert (found.text, found.segments) == ("", ()), name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"language": "klingon"}, "unsupported_language"),
    ({"language": "fr"}, "unsupported_language"),
    ({"task": "sing"}, "unsupported_task"),
    ({"task": "translate", "to_language": "de"}, "unsupported_language"),
    ({"timestamps": "letter"}, "invalid_request"),
    ({"prompt": "<|endoftext|>"}, "reserved_token"),
]


def test_callers_who_ask_for_what_it_does_not_do_disturb_nobody(llm: LLM, folder: Path) -> None:
    clips = [noise(seed, 3.0) for seed in range(4)]
    expected = [llm.transcribe((wave, RATE), language="de", timestamps="segment") for wave in clips]

    async def everybody() -> list[Any]:
        async with AsyncLLM(str(folder), **OPTIONS) as served:
            good = [served.transcribe((wave, RATE), language="de", timestamps="segment") for wave in clips]
            bad = [served.transcribe((clips[0], RATE), **{"language": "en", **wishes}) for wishes, _ in WRONG]
            files = [served.transcribe(data, language="en") for data, _ in bad_files().values()]
            return await asyncio.gather(*good, *bad, *files, return_exceptions=True)

    made = asyncio.run(everybody())
    assert [said(t) for t in made[:4]] == [said(t) for t in expected]
    for (wishes, code), error in zip(WRONG, made[4:]):
        assert isinstance(error, InvalidRequestError), wishes
        assert error.code == code, wishes
    for (name, (_, code)), error in zip(bad_files().items(), made[4 + len(WRONG) :]):
        assert isinstance(error, MediaError), name
        assert error.code == code, name

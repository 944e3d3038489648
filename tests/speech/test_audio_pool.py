"""Decoders in processes of their own: whatever becomes of one, its clip gets a typed error and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import MediaDecodeError, ServerError
from core.media.audio import load_audio
from core.media.audio_limits import AudioLimits
from core.media.audio_pool import AudioDecoders, decoders

from ..core.gate import PATIENCE, wait_until
from .conftest import Open
from .fake import RATE as MODEL_RATE
from .fake import Speech, said
from .sounds import tones, written

RATE = 16_000
GOOD = written(tones(1.0, RATE), RATE)
FAULTY = "tests.speech.faulty_child:child"
STALL = 0.3
"""Seconds until one is stopped that hangs. One that does nothing wrong is not, on however busy a machine."""


class Faulty(AudioDecoders):
    """Do what the first bytes of a clip say."""

    _clip = threading.local()

    def __init__(self) -> None:
        super().__init__(FAULTY)

    @property
    def stall(self) -> float:
        return STALL if self._clip.hangs else PATIENCE

    @stall.setter
    def stall(self, seconds: float) -> None:
        pass

    def decode(self, source: Path | bytes, rate: int | None, limits: AudioLimits) -> tuple[NDArray[np.float32], int]:
        self._clip.hangs = source == b"HANG!!!!"
        return super().decode(source, rate, limits)


@pytest.fixture
def faulty() -> Iterator[AudioDecoders]:
    made = Faulty()
    yield made
    made.close()


def seconds(made: AudioDecoders, data: bytes, limits: AudioLimits | None = None) -> float:
    wave, rate = made.decode(data, RATE, limits or AudioLimits(seconds=30))
    return len(wave) / rate


@pytest.mark.parametrize("what", ["CRASH!!!", "EXIT!!!!", "RUBBISH!", "TOO MUCH", "UNKNOWN!"])
def test_R043_a_decoder_that_crashes_or_lies_ends_its_own_clip(faulty: AudioDecoders, what: str) -> None:
    assert seconds(faulty, GOOD) == 1.0
    for _ in range(2):
        with pytest.raises(MediaDecodeError, match="makes its decoder crash") as caught:
            seconds(faulty, what.encode())
        assert (caught.value.code, caught.value.status, caught.value.param) == ("media_decode_failed", 400, "audio")
        assert faulty._idle == []
        assert seconds(faulty, GOOD) == 1.0


def test_R043_a_decoder_that_hangs_is_killed(faulty: AudioDecoders) -> None:
    assert seconds(faulty, GOOD) == 1.0
    (child,) = faulty._idle
    start = time.monotonic()
    with pytest.raises(MediaDecodeError, match="takes too long to decode") as caught:
        seconds(faulty, b"HANG!!!!")
    assert caught.value.code == "media_decode_failed"
    assert time.monotonic() - start >= STALL
    assert not child.alive
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert seconds(faulty, GOOD) == 1.0


def test_R043_one_that_wants_all_the_memory_gets_an_error(faulty: AudioDecoders) -> None:
    with pytest.raises(MediaDecodeError, match="makes its decoder crash"):
        seconds(faulty, b"MEMORY!!")
    assert seconds(faulty, GOOD) == 1.0


def test_R043_others_go_on_meanwhile(faulty: AudioDecoders) -> None:
    """As many hang as there are places, and crash besides: those that wait for a place get one."""
    threads = threading.active_count()

    def one(data: bytes) -> float | str:
        try:
            return seconds(faulty, data)
        except MediaDecodeError as e:
            return str(e)

    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(one, [b"HANG!!!!", b"HANG!!!!", b"CRASH!!!", *[GOOD] * 9]))
    assert made == [*["the clip takes too long to decode"] * 2, "the clip makes its decoder crash", *[1.0] * 9]
    assert len(faulty._idle) <= 2
    wait_until(lambda: threading.active_count() <= threads)  # a timer that was cancelled ends when it gets to it


def test_an_error_of_the_clips_own_costs_no_child(faulty: AudioDecoders) -> None:
    assert seconds(faulty, GOOD) == 1.0
    (child,) = faulty._idle
    for data in (b"", b"no sound", GOOD[:2000]):
        with pytest.raises(MediaDecodeError) as caught:
            seconds(faulty, data)
        assert caught.value.code == "invalid_audio"
    assert faulty._idle == [child]
    assert child.alive


def test_a_child_that_died_while_it_waited_is_replaced(faulty: AudioDecoders) -> None:
    assert seconds(faulty, GOOD) == 1.0
    (child,) = faulty._idle
    child.kill()
    assert seconds(faulty, GOOD) == 1.0
    assert faulty._idle[0].pid != child.pid


def test_what_does_not_start_is_the_servers_fault() -> None:
    made = AudioDecoders("tests.speech.faulty_child:nothing")
    with pytest.raises(ServerError, match="cannot be started"):
        seconds(made, GOOD)


def test_R043_the_model_goes_on(open_llm: Open, monkeypatch: pytest.MonkeyPatch, faulty: AudioDecoders) -> None:
    monkeypatch.setattr("core.media.audio.decoders", lambda: faulty)
    llm = open_llm(Speech)
    good = written(said("two", "six"), MODEL_RATE, subtype="FLOAT")
    made = llm.transcribe([good, b"CRASH!!!", good, b"HANG!!!!", good], on_error="return")
    assert [t.text for t in made] == ["two six", "", "two six", "", "two six"]
    assert [getattr(t.error, "code", None) for t in made] == [None, "media_decode_failed"] * 2 + [None]


def test_waves_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> AudioDecoders:
        raise AssertionError("a wave is no file")

    monkeypatch.setattr("core.media.audio.decoders", refuse)
    assert load_audio((tones(1.0, 8000), 8000), sample_rate=RATE).seconds == 1.0


def test_a_path_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.wav").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(load_audio("clip.wav").wave, load_audio(GOOD).wave)


def test_children_end_with_their_parent() -> None:
    code = (
        "import os\n"
        "from core.media.audio import load_audio\n"
        "from core.media.audio_pool import decoders\n"
        "import sys\n"
        "load_audio(sys.stdin.buffer.read())\n"
        "print(decoders()._idle[0].pid, flush=True)\n"
        "os._exit(1)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], input=GOOD, capture_output=True, check=False, timeout=120)
    pid = int(made.stdout)
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than a name that nobody has read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_processes_are_started_once() -> None:
    assert decoders() is decoders()

"""Long clips are cut at the quietest place, and nothing is lost or heard twice."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.transcription.joiner import TextJoiner
from core.transcription.split import Chunk, split_audio
from sdk.speech import SpeechToTextConfig


def cuts_by_the_book(wave: Any, rate: int, longest_s: float, search_s: float, window: int) -> list[int]:
    """The rule of `split_audio`, in loops."""
    longest, search, step = int(longest_s * rate), int(search_s * rate), max(1, window // 4)
    cuts, start = [], 0
    while len(wave) - start > longest:
        first, last = start + longest - search, start + longest
        best, place = None, None
        for at in range(first, last - window + 1, step):
            energy = sum(float(s) * float(s) for s in wave[at : at + window])
            if best is None or energy <= best:
                best, place = energy, at
        assert place is not None
        start = place + window // 2
        cuts.append(start)
    return cuts


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 900), st.sampled_from([10, 16, 25]), st.floats(2, 9), st.floats(0.2, 1.5),
    st.integers(1, 30), st.booleans(),
)  # fmt: skip
def test_cuts_are_those_of_the_plain_rule(
    seed: int, length: int, rate: int, longest: float, search: float, window: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Coarse waves have many windows of exactly equal energy, among them silence.
    wave = (rng.integers(-1, 2, length) if coarse else rng.normal(size=length)).astype(np.float32)
    window = min(window, int(search * rate))
    config = SpeechToTextConfig(rate, longest, search, window)
    chunks = split_audio(wave, config)
    assert [c.start for c in chunks[1:]] == cuts_by_the_book(wave, rate, longest, search, window)
    assert chunks[0].start == 0
    assert chunks[-1].stop == length
    assert all(a.stop == b.start for a, b in itertools.pairwise(chunks))
    assert all(c.stop - c.start <= int(longest * rate) for c in chunks)
    assert all(c.stop > c.start for c in chunks) or length == 0


def test_a_pause_within_the_search_window_is_where_it_is_cut() -> None:
    rate = 16_000
    wave = np.random.default_rng(0).normal(size=50 * rate).astype(np.float32)
    wave[int(29.3 * rate) : int(29.6 * rate)] *= 1e-3
    wave[int(28.0 * rate) : int(28.9 * rate)] = 0  # quieter, and too early
    first, second = split_audio(wave, SpeechToTextConfig())
    assert 29.3 <= first.stop / rate <= 29.6
    assert second == Chunk(first.stop, len(wave))


def test_silence_is_cut_as_late_as_may_be() -> None:
    chunks = split_audio(np.zeros(16_000 * 65, dtype=np.float32), SpeechToTextConfig())
    assert [c.start for c in chunks] == [0, 479_200, 958_400]


@pytest.mark.parametrize("seconds", [0.1, 29.9, 30.0])
def test_a_clip_that_fits_is_left_whole(seconds: float) -> None:
    wave = np.zeros(int(16_000 * seconds), dtype=np.float32)
    assert split_audio(wave, SpeechToTextConfig()) == [Chunk(0, len(wave))]


@pytest.mark.parametrize("fields", [{"min_energy_split_window_size": None}, {"max_audio_clip_s": None}])
def test_a_model_that_cuts_by_itself_gets_the_clip_whole(fields: dict[str, Any]) -> None:
    wave = np.zeros(16_000 * 100, dtype=np.float32)
    assert split_audio(wave, SpeechToTextConfig(**fields)) == [Chunk(0, len(wave))]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([" Hello", " world. "], "Hello world."),
        (["Hello", "world."], "Hello world."),
        (["Hello \n", "\n world."], "Hello world."),
        (["", " ", "Hello", "", "  ", "world", " "], "Hello world"),
        (["你好。", "世界"], "你好。世界"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["안녕", "하세요"], "안녕 하세요"),
        ([], ""),
        (["  "], ""),
    ],
)
def test_texts_meet_as_their_script_is_written(pieces: list[str], text: str) -> None:
    joiner = TextJoiner()
    for piece in pieces:
        joiner.next_piece()
        joiner.add(piece)
    assert joiner.text == text


@given(st.lists(st.lists(st.text(max_size=8), max_size=6), max_size=6))
def test_what_is_added_end_to_end_is_the_text_however_it_comes(pieces: list[list[str]]) -> None:
    whole, by_tokens = TextJoiner(), TextJoiner()
    deltas = []
    for piece in pieces:
        whole.next_piece()
        by_tokens.next_piece()
        whole.add("".join(piece))
        deltas += [by_tokens.add(token) for token in piece]
    assert "".join(deltas) == by_tokens.text == whole.text
    assert whole.text == whole.text.strip()

"""Transcriptions as files: what they look like, and that no text and no number breaks them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from core.transcription.result import Segment, Transcription, Word
from core.transcription.writers import FORMATS, render

TALK = Transcription(
    "Hello there. Fish & chips <now>.",
    "en",
    3725.5,
    (
        Segment(0, 0, 0.0, 1.25, " Hello\n\nthere.", (5, 6), 0.0, -0.25, 1.1, 0.01),
        Segment(1, 0, 1.25, 1.5, "  "),
        Segment(2, 3000, 3600.0, 3725.4996, " Fish & chips <now> --> here.", (7,)),
    ),
    (Word("Hello", 0.0, 0.5),),
)


def test_R041_srt() -> None:
    assert TALK.render("srt") == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello there.\n\n"
        "2\n01:00:00,000 --> 01:02:05,500\nFish & chips <now> -> here.\n"
    )


def test_R041_vtt() -> None:
    assert TALK.render("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello there.\n\n"
        "01:00:00.000 --> 01:02:05.500\nFish &amp; chips &lt;now&gt; --&gt; here.\n"
    )


def test_R041_text_and_json() -> None:
    assert TALK.render("text") == TALK.text + "\n"
    assert json.loads(TALK.render("json")) == {"text": TALK.text, "usage": {"type": "duration", "seconds": 3726}}


def test_R041_verbose_json() -> None:
    found = json.loads(TALK.render("verbose_json"))
    assert list(found) == ["task", "language", "duration", "text", "segments", "words", "usage"]
    assert found["segments"][0] == {
        "id": 0, "seek": 0, "start": 0.0, "end": 1.25, "text": " Hello\n\nthere.", "tokens": [5, 6], "temperature": 0.0,
        "avg_logprob": -0.25, "compression_ratio": 1.1, "no_speech_prob": 0.01,
    }  # fmt: skip
    assert found["words"] == [{"word": "Hello", "start": 0.0, "end": 0.5}]
    assert "words" not in json.loads(Transcription("a").render("verbose_json"))


def test_R040_a_clip_in_which_nobody_speaks() -> None:
    silent = Transcription("", "en", 2.0)
    assert silent.render("text") == "\n"
    assert silent.render("srt") == ""
    assert silent.render("vtt") == "WEBVTT\n"
    assert json.loads(silent.render("json"))["text"] == ""
    assert json.loads(silent.render("verbose_json"))["segments"] == []


@pytest.mark.parametrize("name", ["diarized_json", "SRT", "", None, 5, ["srt"]])
def test_R041_unknown_formats_are_refused(name: Any) -> None:
    with pytest.raises(InvalidRequestError, match="text, json, verbose_json, srt, vtt") as caught:
        render(TALK, name)
    assert caught.value.code == "unsupported_parameter"


any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
any_number = st.floats(allow_nan=True, allow_infinity=True)
any_segment = st.builds(
    Segment, st.integers(0, 9), st.integers(0, 9), any_number, any_number, any_text, st.just((1, 2)), any_number, any_number,
    any_number, any_number,
)  # fmt: skip
CLOCK = r"\d\d+:[0-5]\d:[0-5]\d{p}\d{{3}}"
SRT_CUE = re.compile(rf"\d+\n{CLOCK.format(p=',')} --> {CLOCK.format(p=',')}\n[^\n\r]*\S[^\n\r]*\n")
VTT_CUE = re.compile(rf"{CLOCK.format(p='.')} --> {CLOCK.format(p='.')}\n(?!.*-->)[^\n\r<>]*\S[^\n\r<>]*\n")


@given(any_text, any_number, st.lists(any_segment, max_size=5), st.booleans())
def test_R102_no_text_and_no_number_breaks_a_file(
    text: str, duration: float, segments: list[Segment], words: bool
) -> None:
    spoken = tuple(Word(s.text, s.start, s.end) for s in segments) if words else None
    made = Transcription(text, None, duration, tuple(segments), spoken)
    files = {name: render(made, name) for name in FORMATS}
    for file in files.values():
        file.encode("utf-8")
    for name in ("json", "verbose_json"):
        assert "segments" in json.loads(files[name]) or name == "json"
    srt = files["srt"].split("\n\n") if files["srt"] else []
    assert all(SRT_CUE.fullmatch(cue.rstrip("\n") + "\n") for cue in srt)
    assert [cue.split("\n")[0] for cue in srt] == [str(i) for i in range(1, len(srt) + 1)]
    header, *vtt = files["vtt"].split("\n\n")
    assert header.strip() == "WEBVTT"
    assert all(VTT_CUE.fullmatch(cue.rstrip("\n") + "\n") for cue in vtt)
    assert len(srt) == len(vtt)


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_R102_a_subtitle_never_ends_before_it_starts(start: float, end: float) -> None:
    line = Transcription("a", segments=(Segment(0, 0, start, end, "a"),)).render("srt").split("\n")[1]
    first, last = line.split(" --> ")
    assert (len(first), first) <= (len(last), last)

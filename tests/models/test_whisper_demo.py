"""`demo/whisper`: ships, is found, and writes down what its clip says."""

from __future__ import annotations

import pytest
import soundfile

from core import LLM
from core.cli import run
from core.demos import find_demo, read_example

SAID = "one red circle two green square stop open up house seven yellow fox go left black dog right"


def test_its_clip_needs_more_than_one_piece_and_is_written_down_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    folder = find_demo("demo/whisper")
    assert folder is not None
    (clips,) = read_example(folder, "audio")
    seconds = soundfile.info(folder / clips[0]).duration
    assert run(["transcribe", "demo/whisper", "--example", "--dtype", "float32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.partition("] ")[2] for line in lines) == SAID
    starts = [line[1:13] for line in lines]
    assert starts == sorted(starts)
    with LLM("demo/whisper", dtype="float32") as llm:
        heard = llm.transcribe(folder / clips[0], use_progress=False)
        assert heard.language == "en"
        assert heard.duration == pytest.approx(seconds)
        assert len(heard.segments) > 1


def test_words_have_times_in_order() -> None:
    folder = find_demo("demo/whisper")
    assert folder is not None
    with LLM("demo/whisper", dtype="float32") as llm:
        heard = llm.transcribe(folder / "example.flac", timestamps="word", use_progress=False)
    assert heard.words is not None
    assert [word.word.strip() for word in heard.words] == SAID.split()
    assert all(a.start <= b.start for a, b in zip(heard.words, heard.words[1:]))

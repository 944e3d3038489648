"""`engine transcribe`: files in, text or subtitles out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.cli import run
from sdk import registry

from . import fake
from .fake import RATE, Listening, Speech, said
from .sounds import written


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    for name, words in (("a", ["one", "two"]), ("b", ["three"])):
        (tmp_path / f"{name}.wav").write_bytes(written(said(*words), RATE, subtype="FLOAT"))
    return [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]


@pytest.fixture(params=[Listening])
def plugin(request: pytest.FixtureRequest) -> Iterator[Any]:
    fake.register(request.param)
    yield request.param
    registry.unregister(fake.ARCHITECTURE)


@pytest.mark.usefixtures("plugin")
def test_texts_are_printed(folder: Path, clips: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["transcribe", str(folder), *clips]) == 0
    out, err = capsys.readouterr()
    assert out == "one two\nthree\n"
    assert clips[1] in err


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("format", "suffix", "start"),
    [
        ("text", ".txt", "one two\n"),
        ("json", ".json", '{"text": "one two"'),
        ("verbose_json", ".json", '{"task": "transcribe", "language": "de"'),
        ("srt", ".srt", "1\n00:00:00,000 --> 00:00:00,200\none\n\n2\n"),
        ("vtt", ".vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.200\none\n"),
    ],
)
def test_R041_every_format_is_written_into_a_folder(
    folder: Path, clips: list[str], tmp_path: Path, format: str, suffix: str, start: str
) -> None:
    out = tmp_path / "new" / "folder"
    assert run(["transcribe", str(folder), *clips, "--format", format, "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"a{suffix}", f"b{suffix}"]
    assert (out / f"a{suffix}").read_text(encoding="utf-8").startswith(start)


@pytest.mark.usefixtures("plugin")
def test_words_and_translation(folder: Path, clips: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--format",
        "verbose_json",
        "--timestamps",
        "word",
        "--translate",
        "--to-language",
        "de",
        "--prompt",
        "two",
    ]
    assert run(["transcribe", str(folder), clips[0], "--language", "en", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["language"]) == ("translate", "en")
    assert [word["word"] for word in found["words"]] == ["one", "two"]


@pytest.mark.parametrize("plugin", [Speech], indirect=True)
@pytest.mark.usefixtures("plugin")
def test_subtitles_without_time_stamps_are_the_pieces(
    folder: Path, clips: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["transcribe", str(folder), clips[0], "--format", "srt"]) == 0
    out, err = capsys.readouterr()
    assert out == "1\n00:00:00,000 --> 00:00:00,600\none two\n"
    assert "gives no time stamps" in err
    assert run(["transcribe", str(folder), clips[0], "--timestamps", "segment"]) == 1
    assert "gives no time stamps of segments" in capsys.readouterr().err


@pytest.mark.usefixtures("plugin")
def test_a_file_that_cannot_be_used_does_not_keep_the_others(
    folder: Path, clips: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["transcribe", str(folder), clips[0], "nowhere.mp3", clips[1]]) == 1
    out, err = capsys.readouterr()
    assert out == "one two\nthree\n"
    assert "error: nowhere.mp3: cannot be read: No such file or directory\n" in err


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "diarized_json"], "--format is one of"),
        (["--timestamps", "letter"], "--timestamps is"),
        (["--temperature", "-1"], "temperature must be between 0 and"),
        ([], "give the files to transcribe"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_loaded(
    clips: list[str], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [clips[0], *arguments] if arguments else []
    assert run(["transcribe", "no-such-model", *given]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("plugin")
def test_two_files_never_go_to_one_place(
    folder: Path, clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["transcribe", str(folder), clips[0], clips[0], "-o", str(tmp_path)]) == 2
    assert "rename one" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(["transcribe", str(folder), clips[0], "-o", str(tmp_path / "file")]) == 2


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("timestamps", "lines"), [("segment", 2), ("word", 2)])
def test_text_with_times_is_a_line_for_each(
    folder: Path, clips: list[str], timestamps: str, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["transcribe", str(folder), clips[0], "--timestamps", timestamps]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("[00:00:00.000 --> 00:00:00.200] one\n")
    assert out.endswith("] two\n")
    assert len(out.splitlines()) == lines
    assert clips[0] in err


@pytest.mark.usefixtures("plugin")
def test_the_example_of_a_demo_is_transcribed_with_times(
    folder: Path, clips: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["transcribe", str(folder), "--example"]) == 2
    assert "brings no example" in capsys.readouterr().err
    (folder / "example.json").write_text(json.dumps({"audio": clips}), encoding="utf-8")
    assert run(["transcribe", str(folder), "--example"]) == 0
    assert "--> 00:00:00.200] one\n" in capsys.readouterr().out
    assert run(["transcribe", str(folder)]) == 2
    assert run(["transcribe", str(folder), *clips, "--example"]) == 2

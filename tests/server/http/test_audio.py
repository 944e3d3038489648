"""Transcriptions over HTTP: every form of text, OpenAI's events, and clips that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from core import LLM

from .conftest import ENGINE, PATIENCE, Start, error_of, wav

CLIP = wav(3.0)
PATH = "/v1/audio/transcriptions"


def post(http: httpx2.Client, clip: bytes = CLIP, path: str = PATH, **fields: Any) -> httpx2.Response:
    return http.post(path, files={"file": ("clip.wav", clip)}, data={"model": "ear", **fields})


def test_a_transcription_is_what_the_engine_in_process_hears(client: openai.OpenAI, ear: LLM) -> None:
    found = client.audio.transcriptions.create(model="ear", file=("clip.wav", CLIP), language="en")
    mine = ear.transcribe(CLIP, language="en")
    assert found.text == mine.text
    assert found.usage is not None
    assert found.usage.type == "duration"
    assert found.usage.seconds == 3


@pytest.mark.parametrize(
    ("form", "mime"),
    [
        ("json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
        ("verbose_json", "application/json"),
    ],
)
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_R041_every_form_of_text(http: httpx2.Client, ear: LLM, form: Any, mime: str, task: Any) -> None:
    path = PATH if task == "transcribe" else "/v1/audio/translations"
    response = post(http, path=path, response_format=form, language="en")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == mime
    mine = ear.transcribe(CLIP, language="en", task=task)
    assert [segment.temperature for segment in mine.segments] == [0, 0]  # nothing is drawn, so both hear the same
    if form in ("json", "text"):
        assert response.text == mine.render(form)
    elif form == "verbose_json":  # with times it doubts some of it, and draws that
        found = response.json()
        assert set(found) == set(json.loads(mine.render(form)))
        assert (found["task"], found["language"], found["duration"]) == (task, "en", pytest.approx(3.0))
        assert all(0 <= segment["start"] <= segment["end"] <= 3 for segment in found["segments"])
    else:
        clock = r"\d\d:\d\d:0[0-3][.,]\d{3}"
        assert re.search(rf"^{clock} --> {clock}$", response.text, re.MULTILINE)
        assert response.text.startswith("WEBVTT\n" if form == "vtt" else "1\n")


@pytest.mark.parametrize("wanted", [["segment"], ["word"], ["word", "segment"]])
def test_R041_times_of_segments_and_words(client: openai.OpenAI, wanted: Any) -> None:
    found = client.audio.transcriptions.create(
        model="ear",
        file=("clip.wav", CLIP),
        language="en",
        response_format="verbose_json",
        timestamp_granularities=wanted,
    )
    assert (found.segments is not None) == (wanted != ["word"])
    assert (found.words is not None) == ("word" in wanted)
    assert found.duration == pytest.approx(3.0)
    for timed in [*(found.segments or ()), *(found.words or ())]:
        assert 0 <= timed.start <= timed.end <= 3


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_stream_tells_what_the_whole_does(client: openai.OpenAI, form: Any) -> None:
    whole = client.audio.transcriptions.create(model="ear", file=("clip.wav", CLIP), language="en")
    events = list(
        client.audio.transcriptions.create(
            model="ear", file=("clip.wav", CLIP), language="en", stream=True, response_format=form
        )
    )
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == whole.text
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == whole.text


@pytest.mark.asyncio
async def test_the_async_client_transcribes(aclient: openai.AsyncOpenAI, ear: LLM) -> None:
    found = await aclient.audio.transcriptions.create(model="ear", file=("clip.wav", CLIP), language="en")
    assert found.text == ear.transcribe(CLIP, language="en").text


@pytest.mark.parametrize(
    ("clip", "status", "code"),
    [
        (b"", 400, "invalid_audio"),
        (CLIP[:30], 400, "invalid_audio"),
        (b"no sound at all", 400, "invalid_audio"),
        (wav(21), 413, "audio_too_large"),
        (bytes(26 * 2**20), 413, "audio_too_large"),
    ],
    ids=["empty", "cut", "text", "long", "large"],
)
def test_R038_R040_clips_that_are_none(http: httpx2.Client, clip: bytes, status: int, code: str) -> None:
    response = post(http, clip)
    assert response.status_code in (status, 400), response.text
    assert error_of(response)["code"] in (code, "audio_too_long", "audio_too_large")


@pytest.mark.parametrize("seconds", [0.1, 7.5])
def test_R040_short_and_long_clips(http: httpx2.Client, ear: LLM, seconds: float) -> None:
    clip = wav(seconds)
    response = post(http, clip, language="en")
    assert response.json()["text"] == ear.transcribe(clip, language="en").text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "mp3"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "day", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"stream": "true", "response_format": "srt"}, "response_format"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"language": "klingon"}, "language"),
        ({"include[]": "logprobs"}, "include"),
        ({"chunking_strategy": "server_vad"}, "chunking_strategy"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names"),
        ({"prompt": "<|endoftext|>"}, "prompt"),
        ({"model": "none"}, "model"),
        ({"model": "tiny"}, "model"),
    ],
)
def test_R041_what_cannot_be_done_is_refused(http: httpx2.Client, fields: dict[str, str], param: str) -> None:
    response = post(http, **fields)
    assert response.status_code in (400, 404), response.text
    assert str(error_of(response)["param"]).startswith(param)


def test_R006_a_form_without_a_file(http: httpx2.Client) -> None:
    response = http.post(PATH, files={"sound": ("clip.wav", CLIP)}, data={"model": "ear"})
    assert (response.status_code, error_of(response)["param"]) == (400, "file")


def test_the_only_model_that_transcribes_needs_no_name(http: httpx2.Client) -> None:
    response = http.post(PATH, files={"file": ("clip.wav", wav(0.5))}, data={"language": "en"})
    assert response.status_code == 200
    assert set(json.loads(response.text)) == {"text", "usage"}


def counted(http: httpx2.Client) -> dict[str, float]:
    """What the metrics say of prompts: series → sum over its labels."""
    found: dict[str, float] = {}
    for line in http.get("/metrics").text.splitlines():
        name, _, rest = line.partition("{")
        if rest and name.startswith("engine_") and not name.startswith("engine_http_"):
            found[name] = found.get(name, 0.0) + float(rest.rpartition(" ")[2])
    return found


def test_transcriptions_are_counted_and_what_comes_before_them_is_logged(start: Start, whisper_folder: Path) -> None:
    names = ["--served-model-name", "ear", "--log-format", "json", "--log-prompts"]
    with start(str(whisper_folder), *names, *ENGINE) as served:
        with httpx2.Client(base_url=served.url, timeout=PATIENCE) as http:
            assert post(http, response_format="verbose_json").json()["segments"]
            whole = counted(http)
            assert post(http, response_format="json", stream="true", prompt="Ann and Bo").status_code == 200
            assert post(http, response_format="json", prompt="Ann and Bo").status_code == 200
            both = counted(http)
        assert served.end() == 0
    assert whole["engine_requests_total"] > 0
    assert whole["engine_prompt_tokens_total"] > 0
    assert whole["engine_generation_tokens_total"] > whole["engine_requests_total"]
    assert whole["engine_time_to_first_token_seconds_count"] == whole["engine_requests_total"]
    assert both["engine_requests_total"] > whole["engine_requests_total"]
    lines = [json.loads(line) for line in served.lines if line.startswith("{")]
    ended = [line for line in lines if line.get("route") == PATH]
    assert len(ended) == 3
    assert all(line["prompt_tokens"] > 0 for line in ended)
    assert sum(line["completion_tokens"] for line in ended) == both["engine_generation_tokens_total"]
    assert ended[1]["completion_tokens"] == ended[2]["completion_tokens"], "a stream is counted as the whole is"
    assert [line["prompt"] for line in lines if "prompt" in line] == ["Ann and Bo"] * 2

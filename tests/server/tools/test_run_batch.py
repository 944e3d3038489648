"""`engine run-batch`: each line has its record, what is wrong with one is its own, and a run that was cut off is gone on with."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from core import LLM
from core.cli import run
from core.demos import find_demo
from core.media.fetch import MediaFetcher
from core.server.app import build_app
from core.server.batch import Batch, Tally
from core.server.batch_file import Records, read_lines
from core.server.gate import Gate
from core.server.metrics import Metrics
from core.server.models import Models
from core.server.settings import ServerSettings

from ..http.conftest import asking, data_uri, png

CHAT = "/v1/chat/completions"


def line(custom_id: str, body: dict[str, Any], url: str = CHAT, **more: Any) -> str:
    """A line of a file."""
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more})


def chatting(text: str, *pictures: str, **more: Any) -> dict[str, Any]:
    """A body."""
    return {"model": "tiny", "messages": asking(text, *pictures), "max_tokens": 5, **more}


@pytest.fixture(scope="module")
def application(models: Models) -> Gate:
    return build_app(models, ServerSettings())


def done(app: Gate, source: Path, target: Path, *, resume: bool = False, concurrency: int = 4) -> tuple[Tally, Any]:
    """Do a file; the tally, and the records by their names."""
    with Records(target, resume=resume) as records:
        tally = asyncio.run(Batch(app, MediaFetcher(), concurrency).run(read_lines(source), records))
    found = [json.loads(text) for text in target.read_text().splitlines()]
    named = {record["custom_id"]: record for record in found if record["response"] is not None}
    return tally, (named, [record for record in found if record["response"] is None])


def said(record: dict[str, Any]) -> Any:
    """What a record answers."""
    assert record["error"] is None
    assert record["response"]["status_code"] == 200, record
    choice = record["response"]["body"]["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def test_each_line_has_its_record_and_a_wrong_one_harms_no_other(application: Gate, tmp_path: Path) -> None:
    picture = data_uri(png())
    lines = [
        line("good-1", chatting("one")),
        "{ no json",
        line("good-2", chatting("what is this?", picture)),
        line("bad-model", {**chatting("x"), "model": "nobody"}),
        json.dumps({"url": CHAT, "body": {}}),
        line("good-1", chatting("twice")),
        "",
        line("bad-url", {}, url="/metrics"),
        line("bad-method", {}, method="GET"),
        line("bad-body", []),  # type: ignore[arg-type]
        line("bad-stream", chatting("x", stream=True)),
        line("bad-number", chatting("x", max_tokens=-1)),
        line("bad-picture", chatting("x", "data:image/png;base64,AAAA")),
        line("bad-path", chatting("x", "/etc/passwd")),
        line("bad-task", {"input": "x"}, url="/v1/embeddings"),
        line("bad-clip", {}, url="/v1/audio/transcriptions"),
        line("bad-half", {"file": "data:audio/wav;base64,AAAA", "prompt": "\ud83d"}, url="/v1/audio/transcriptions"),
        line("bad-text", chatting("half \ud83d")),
        line("good-3", {"prompt": "one two", "max_tokens": 4}, url="/v1/completions"),
        "[1]",
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tally, (records, wrong) = done(application, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tally.answered, tally.failed, tally.skipped) == (3, 16, 0)
    alone = tmp_path / "alone.jsonl"
    for name, at in (("good-1", 0), ("good-2", 2), ("good-3", 18)):
        alone.write_text(lines[at])
        _, (same, _) = done(application, alone, tmp_path / f"{name}.jsonl")
        assert said(records[name]) == said(same[name])
        assert records[name]["response"]["request_id"]
    codes = {
        n: (r["response"]["status_code"], r["response"]["body"]["error"]["code"])
        for n, r in records.items()
        if "bad" in n
    }
    assert codes == {
        "bad-model": (404, "model_not_found"),
        "bad-number": (400, "invalid_request"),
        "bad-picture": (400, "invalid_image"),
        "bad-path": (400, "media_url_forbidden"),
        "bad-task": (404, "unsupported_task"),
        "bad-clip": (400, "missing_parameter"),
        "bad-half": (400, "invalid_json"),
        "bad-text": (400, "invalid_json"),
    }
    assert [
        (r["error"]["line"], r["custom_id"], r["error"]["param"])
        for r in sorted(wrong, key=lambda r: r["error"]["line"])
    ] == [
        (2, None, None),
        (5, None, "custom_id"),
        (6, "good-1", "custom_id"),
        (8, "bad-url", "url"),
        (9, "bad-method", "method"),
        (10, "bad-body", "body"),
        (11, "bad-stream", "body.stream"),
        (20, None, None),
    ]


def test_a_run_that_was_cut_off_is_gone_on_with(application: Gate, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ["no json", *(line(f"r{i}", chatting(f"number {i}")) for i in range(6))]
    source.write_text("\n".join(lines))
    _, (whole, _) = done(application, source, target)
    written = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(written[:3]) + written[3][:-7])  # cut in the middle of a record
    tally, (records, wrong) = done(application, source, target, resume=True)
    assert tally.skipped == 3
    assert tally.answered + tally.failed == 4
    assert len(wrong) == 1
    assert {name: said(r) for name, r in records.items()} == {name: said(r) for name, r in whole.items()}
    tally, _ = done(application, source, target, resume=True)
    assert (tally.skipped, tally.answered, tally.failed) == (7, 0, 0)


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(line("a", {}))
    target.write_text("my notes\n")
    assert run(["run-batch", "demo/llava", "-i", str(source), "-o", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["run-batch", "demo/llava", "-i", str(source), "-o", str(target), "--resume"]) == 2
    assert "holds other things" in capsys.readouterr().err
    assert run(["run-batch", "demo/llava", "-i", str(tmp_path / "none"), "-o", str(tmp_path / "new")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert target.read_text() == "my notes\n"
    assert not (tmp_path / "new").exists()


def test_lines_that_an_engine_died_over_are_tried_again_one_by_one(tmp_path: Path) -> None:
    """On an application whose engine dies of the first lines, and of one whenever it comes."""
    api, down, running, most = FastAPI(), {"for": 0}, set(), {"at once": 0}

    @api.post(CHAT)
    async def chat(body: dict[str, Any]) -> Response:
        running.add(body["user"])
        again = body["user"] in seen
        seen.add(body["user"])
        if len(seen) == 4:
            all_came.set()
        await (asyncio.sleep(0.01) if again else all_came.wait())
        most["at once"] = max(most["at once"], len(running) if again else 0)
        running.discard(body["user"])
        if not again or body["user"] == "r2":
            down["for"] = 2
            return JSONResponse({"error": {"message": "x", "type": "x", "param": None, "code": "engine_dead"}}, 503)
        return JSONResponse({"choices": [{"message": {"content": "well"}}]})

    @api.get("/ready")
    async def ready() -> Response:
        down["for"] -= 1
        return Response(status_code=503 if down["for"] >= 0 else 200)

    seen, all_came = set[str](), asyncio.Event()
    (tmp_path / "in.jsonl").write_text("\n".join(line(f"r{i}", {"user": f"r{i}"}) for i in range(4)))
    tally, (records, _) = done(Gate(api, Metrics()), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tally.answered, tally.failed) == (3, 1)
    assert most["at once"] == 1
    assert records["r2"]["response"]["body"]["error"]["code"] == "engine_dead"


def test_the_command_transcribes_a_file_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = find_demo("demo/whisper")
    assert folder is not None
    clip = (folder / "example.flac").read_bytes()
    uri = f"data:audio/flac;base64,{base64.b64encode(clip).decode()}"
    url = "/v1/audio/transcriptions"
    timed = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    (tmp_path / "in.jsonl").write_text("\n".join([
        line("json", {"file": uri}, url=url),
        line("srt", {"file_url": uri, "response_format": "srt", "model": "demo/whisper"}, url=url),
        line("timed", {"file": uri, **timed}, url=url),
        line("remote", {"file": "http://127.0.0.1:1/a.wav"}, url=url),
    ]))  # fmt: skip
    files = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    assert run(["run-batch", "demo/whisper", *files, "--dtype", "float32"]) == 1
    assert "3 answered, 1 failed, in " in capsys.readouterr().err
    found = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    records = {record["custom_id"]: record["response"] for record in found}
    with LLM("demo/whisper", dtype="float32", disable_progress=True) as llm:
        text = llm.transcribe(clip).text
    assert records["json"]["body"]["text"] == text
    assert records["srt"]["body"]["text"].startswith("1\n00:00:")
    assert records["timed"]["body"]["words"]
    assert records["timed"]["body"]["segments"]
    assert records["remote"]["body"]["error"]["code"] == "media_url_forbidden"

"""`engine chat` and `engine bench serve` against a server: what they say, what they send, and what becomes of trouble."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from core.cli import run
from core.client.endpoint import Endpoint, ReplyError, delta_of, event_of, refusal
from core.client.figures import figures, quantile
from core.client.load import Sample, Work
from core.client.talk import Answer
from core.errors import InvalidConfigError

from ..again import one_that
from ..endless import LENGTH
from ..http.conftest import PATIENCE, Served, png, wait_until_idle
from .conftest import KEY

CONTROL = re.compile(r"\x1b\[[?\d;]*[a-zA-Z]")
"""What moves a terminal's cursor and the like."""


def engine(served: Served, *arguments: str, key: str = KEY) -> int:
    """Run the command line against the server."""
    return run([*arguments, "--url", served.url, "--api-key", key])


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What the program reads."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def answered(served: Served, *messages: dict[str, Any], **options: Any) -> str:
    """What the server says by itself."""
    body = {"model": "tiny", "messages": list(messages), **options}
    headers = {"Authorization": f"Bearer {KEY}"}
    reply = httpx2.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE)
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


# ---- chat


def test_each_line_is_answered_within_one_conversation(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one", "two", "/reset", "one", "/system be brief", "/reset", "one")
    assert engine(served, "chat", "--max-tokens", "6") == 0
    shown = capsys.readouterr()
    one = {"role": "user", "content": "one"}
    first = answered(served, one, max_tokens=6)
    history = [one, {"role": "assistant", "content": first}, {"role": "user", "content": "two"}]
    second = answered(served, *history, max_tokens=6)
    last = answered(served, {"role": "system", "content": "be brief"}, one, max_tokens=6)
    assert shown.out == "".join(f"{text}\n" for text in (first, second, first, last))
    assert len(re.findall(r"\[\d+ \+ 6 tokens, first after \d+ ms.*, cut off", shown.err)) == 4


def test_how_fast_an_answer_came_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        typed(monkeypatch, "one")
        assert engine(served, "chat", "--max-tokens", "200") == 0
        return capsys.readouterr().err

    fully = re.compile(r"\[\d+ \+ 200 tokens, first after \d+ ms, (then \d+ tokens/s|all after \d+ ms), cut off")
    shown = one_that(fully.search, told)
    assert fully.search(shown), shown
    answer = Answer("a" * 10, "stop", prompt_tokens=3, tokens=20, first=0.5, last=1.5, began=5)
    assert answer.told() == "3 + 20 tokens, first after 500 ms, then 10 tokens/s"  # ten of them came at once
    assert replace(answer, last=0.51).told() == "3 + 20 tokens, first after 500 ms, all after 510 ms"
    assert replace(answer, last=0.5).told() == "3 + 20 tokens, first after 500 ms"  # in one piece


def test_a_picture_goes_with_the_next_message(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    typed(monkeypatch, f"/image {tmp_path / 'a.png'}", "what?", "/image nowhere.png", "/model", "/nonsense", "/help")
    assert engine(served, "chat", "--max-tokens", "4") == 1
    shown = capsys.readouterr()
    assert int(re.findall(r"\[(\d+) \+ 4", shown.err)[0]) > 20  # the picture's tokens are among them
    assert "nowhere.png cannot be read" in shown.err
    assert "* tiny" in shown.err
    assert "there is no command /nonsense" in shown.err


def test_what_the_server_refuses_is_said_and_the_next_line_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one", "/model nobody", "one", "/model tiny", "one")
    assert engine(served, "chat", "--max-tokens", "3") == 1
    shown = capsys.readouterr()
    assert shown.err.count("error: there is no model 'nobody'") == 1
    assert len(shown.out.splitlines()) >= 2
    assert engine(served, "chat", key="sk-wrong") == 1
    assert "this server asks for a key" in capsys.readouterr().err
    assert run(["chat", "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.fixture
def ended() -> Iterator[contextlib.ExitStack]:
    """What is undone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_stops_the_answer_and_not_the_program(
    served: Served, inherited: signal.Handlers, ended: contextlib.ExitStack
) -> None:
    """Also where the tests run in a script's background, whose children ignore it unless they say otherwise."""
    ours, theirs = pty.openpty()
    ended.callback(os.close, ours)

    def begin() -> None:
        os.login_tty(theirs)  # a session of its own: the terminal sends its interrupt to who is in front of it
        signal.signal(signal.SIGINT, inherited)

    command = [sys.executable, "-m", "core.cli", "chat", "--url", served.url, "--api-key", KEY]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=begin)
    ended.callback(process.wait, PATIENCE)
    ended.callback(process.kill)
    os.close(theirs)
    seen = ""

    def until(pattern: str, again: bytes = b"") -> None:
        nonlocal seen
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, seen):
            ready, _, _ = select.select([ours], [], [], 2)
            assert time.monotonic() < end, repr(seen)
            if not ready:
                os.write(ours, again)
                continue
            seen = CONTROL.sub("", seen + os.read(ours, 65536).decode("utf-8", "replace"))

    until("> $")
    os.write(ours, b"go on\n")
    until(r"go on\s+[^\s\x1b]")
    os.write(ours, b"\x03")
    until(r"\[stopped\]\s+> $")
    os.write(ours, b"\x03")
    until(r"\(Ctrl-D ends\)\s+> $", again=b"\x03")  # Python's prompt may miss one that comes while it is set up
    seen = ""
    os.write(ours, b"/quit\n")
    assert process.wait(PATIENCE) == 0
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=served.url, headers=headers, timeout=PATIENCE) as http:
        wait_until_idle(http)


# ---- bench


def check_times(found: dict[str, Any], *names: str) -> None:
    """Times that were taken, of a benchmark's figures."""
    for name in names:
        times = found[name]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"], name


def test_a_benchmark_counts_what_was_done(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--requests", "12", "--concurrency", "4", "--input-len", "60", "--output-len", "10"]
    assert engine(served, "bench", "serve", *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["completed"], found["failed"], found["output_tokens"]) == (12, 0, 120)
    assert abs(found["prompt_tokens"] / 12 - 60) <= 12  # words of several tokens
    assert found["output_tokens_per_second"] == pytest.approx(120 / found["seconds"])
    # Tokens that a busy server sends together have no time between them.
    check_times(found, "time_to_first_token", "latency")
    assert found["time_to_first_token"]["p99"] <= found["latency"]["p99"]


def test_pictures_go_with_the_prompts(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-n", "2", "-c", "2", "--input-len", "60", "--output-len", "4", "--images", "1", "--image-size", "40x30"]
    assert engine(served, "bench", "serve", *asked) == 0
    shown = capsys.readouterr().out
    assert "tiny: 2 answers, 2 at a time" in shown
    assert re.search(r"Time to first token +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+", shown)
    assert engine(served, "bench", "serve", "--image-size", "big") == 2


def test_requests_that_fail_are_counted_by_their_error(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-n", "3", "--input-len", str(LENGTH + 1), "--output-len", "4"]
    assert engine(served, "bench", "serve", *asked) == 1
    assert re.search(r"3 failed:\n  3 × 400 context_length_exceeded: \w+", capsys.readouterr().out)
    assert engine(served, "bench", "serve", "--model", "nobody") == 1
    assert "does not serve such requests: there is no model 'nobody'" in capsys.readouterr().err


def test_quantiles_lie_where_numpy_has_them() -> None:
    values = np.random.default_rng(0).random(57).tolist()
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


def test_figures_are_of_the_requests_that_succeeded() -> None:
    good = Sample(start=1.0, end=3.0, arrivals=[1.5, 2.0, 3.0], prompt_tokens=7, tokens=3)
    found = figures(Work("m"), [good, Sample(start=1.0, end=5.0, error="500 no", message="x")])
    assert (found["completed"], found["failed"]) == (1, 1)
    assert found["errors"] == {"500 no": {"count": 1, "message": "x"}}
    assert found["seconds"] == 4.0
    assert found["output_tokens_per_second"] == 0.75
    assert found["time_to_first_token"]["p50"] == 0.5
    assert found["inter_token_latency"]["mean"] == 0.75
    assert found["time_per_output_token"]["p50"] == 0.75
    nothing = figures(Work("m"), [Sample(error="x")])
    assert nothing["latency"] is None


# ---- other servers


class Other(BaseHTTPRequestHandler):
    """A server that knows neither usage nor our errors, and fails the last of its requests in mid-stream."""

    asked: int = 0

    def do_POST(self) -> None:
        Other.asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in ("a ", "b ", "c"):
            chunk = {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n: comment\n\n".encode())
        end = {"error": {"message": "out of memory"}} if Other.asked == 6 else "[DONE]"
        self.wfile.write(f"data: {end if isinstance(end, str) else json.dumps(end)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def other() -> Iterator[str]:
    Other.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}/v1/"
        server.shutdown()


def test_a_server_of_another_make_is_measured(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-n", "4", "-c", "1", "--input-len", "5", "--model", "m", "--no-ignore-eos", "--warmup", "0", "--json"]
    assert run(["bench", "serve", "--url", other, *asked]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["completed"], found["output_tokens"]) == (3, 9)  # events, where nobody counts tokens
    assert found["errors"] == {"in mid-stream reply_error": {"count": 1, "message": "out of memory"}}
    check_times(found, "time_to_first_token", "inter_token_latency", "time_per_output_token", "latency")


@pytest.mark.parametrize("url", ["http://a:1", "http://a:1/", "http://a:1/v1", "a:1", "a:1/v1/"])
def test_addresses_are_taken_as_people_type_them(url: str) -> None:
    assert Endpoint.of(url).base == "http://a:1"


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a:port", "http://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError, match="--url"):
        Endpoint.of(url)


def test_errors_are_read_in_whatever_form() -> None:
    assert str(refusal(400, b'{"error": {"message": "no", "code": 7}}')) == "no"
    assert str(refusal(400, b'{"detail": "no"}')) == "no"
    assert str(refusal(502, b"")) == "the server answers 502"
    assert str(refusal(502, b"<html>bad gateway")) == "<html>bad gateway"
    with pytest.raises(ReplyError, match="no JSON"):
        event_of("data: {")
    assert event_of("data: [DONE]") is event_of(": hello") is event_of("") is None
    assert delta_of({"choices": []}) == delta_of({}) == delta_of({"choices": [{"delta": None}]}) == ""
    assert delta_of({"choices": [{"text": "x"}]}) == "x"

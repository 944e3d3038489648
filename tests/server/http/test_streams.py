"""Clients that leave, that do not read, that are too many: nothing of their requests stays, and others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import select
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from core import LLM, SamplingParams

from .conftest import (
    ENGINE,
    KEY,
    PATIENCE,
    Served,
    Start,
    asking,
    data_uri,
    error_of,
    gauges,
    held,
    png,
    shared,
    wait_until_idle,
    wav,
)
from .test_lifecycle import children, engines

CHAT = "/v1/chat/completions"
STEPS, PROCESSING = "engine_steps_total", "engine_num_requests_processing"
LONG = {"model": "tiny", "temperature": 0, "max_tokens": 400, "ignore_eos": True}
ENDLESS: dict[str, Any] = {**LONG, "max_tokens": 20_000}
"""Of a model that has room for them: nobody waits for the last one."""


def connect(served: Served, body: dict[str, Any], path: str = CHAT, receive_buffer: int | None = None) -> socket.socket:
    """A request whose answer nobody has begun to read."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    made = socket.socket()
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(PATIENCE)
    made.connect((host, int(port)))
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    made.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    return made


def reply(connection: socket.socket) -> tuple[int, Mapping[str, str], Any]:
    """Status, headers and body of the answer, which is read to its end."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.headers, json.loads(response.read())


@pytest.fixture(scope="module")
def endless(start: Start, endless_folder: Path) -> Iterator[Served]:
    """A server whose answers are ended by others: its own end of them is too far off."""
    with start(str(endless_folder), "--served-model-name", "tiny", *ENGINE) as served, shared(served):
        yield served


@pytest.fixture
def there(endless: Served) -> Iterator[httpx2.Client]:
    """Of whose requests nothing is left."""
    with httpx2.Client(base_url=endless.url, timeout=PATIENCE) as found:
        yield found
        wait_until_idle(found)


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.5])
@pytest.mark.parametrize(
    "more", [{}, {"stream": True}, {"n": 4}, {"n": 4, "stream": True}], ids=["whole", "stream", "several", "streams"]
)
def test_R085_a_client_that_leaves_frees_its_pages(
    endless: Served, there: httpx2.Client, more: dict[str, Any], wait: float
) -> None:
    before = gauges(there, STEPS)[STEPS]
    for pictures in ([], [data_uri(png())]):
        connection = connect(endless, {**ENDLESS, "messages": asking("go on", *pictures), **more})
        time.sleep(wait)
        connection.close()
    wait_until_idle(there)
    assert gauges(there, STEPS)[STEPS] - before < ENDLESS["max_tokens"]


def test_R085_leaving_at_the_last_token(served: Served, http: httpx2.Client) -> None:
    for _ in range(5):
        connection = connect(served, {**LONG, "messages": asking("hi"), "stream": True, "max_tokens": 3})
        seen = b""
        while b'"finish_reason":"length"' not in seen:
            part = connection.recv(4096)
            assert part, seen
            seen += part
        connection.close()
    wait_until_idle(http)


def test_R085_a_transcription_that_nobody_waits_for_ends(served: Served, http: httpx2.Client) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wav(19) + b"\r\n--x--\r\n"
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.5)
    wait_until_idle(http)


def test_what_is_no_http_is_told_so(served: Served) -> None:
    host, _, port = served.url.removeprefix("http://").partition(":")
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"):
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                connection.sendall(sent)
            seen = b""
            with contextlib.suppress(OSError):
                while part := connection.recv(4096):
                    seen += part
        assert not seen or b" 400 " in seen.partition(b"\r\n")[0]
        assert not seen or json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_R012_a_deadline_ends_a_request(there: httpx2.Client) -> None:
    response = there.post(CHAT, json={**ENDLESS, "messages": asking("x"), "timeout": 0.05})
    assert response.status_code == 504
    assert error_of(response)["code"] == "request_timeout"


def test_R088_a_deadline_within_a_stream_ends_it_with_an_error(there: httpx2.Client) -> None:
    for seconds in (0.6, 5, 40):  # until some tokens come in time
        body = {**ENDLESS, "messages": asking("x"), "stream": True, "n": 8, "timeout": seconds}
        with there.stream("POST", CHAT, json=body) as response:
            lines = [line for line in response.iter_lines() if line]
        if len(lines) > 3:
            break
    assert response.status_code == 200
    assert len(lines) > 3
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "request_timeout"


def test_R084_short_requests_do_not_wait_for_long_ones(endless: Served, there: httpx2.Client) -> None:
    """Prompts of many answers that do not end, and short ones behind them: these are done."""

    def send(count: int, prompt: str, tokens: int, n: int) -> list[socket.socket]:
        waiting = gauges(there, PROCESSING)[PROCESSING]
        body = {**ENDLESS, "prompt": prompt, "max_tokens": tokens, "n": n}
        sent = [connect(endless, body, "/v1/completions") for _ in range(count)]
        until = time.monotonic() + PATIENCE
        while gauges(there, PROCESSING)[PROCESSING] < waiting + count:
            assert time.monotonic() < until
            time.sleep(0.02)
        return sent

    with held(*children(endless.process.pid)):  # nothing is begun before all have come, the long ones first
        long, short = send(2, "why " * 20, ENDLESS["max_tokens"], 8), send(10, "why", 4, 1)
    for connection in short:
        assert reply(connection)[0] == 200
    assert select.select(long, [], [], 0)[0] == []
    for connection in long:
        connection.close()


@pytest.mark.asyncio
async def test_R017_huge_prompts_are_refused_and_hold_up_nobody(served: Served, http: httpx2.Client) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    asked = {"model": "tiny", "prompt": [9, 8, 7], "max_tokens": 2}
    async with httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=PATIENCE) as many:
        huge = [asking(text) for text in ("a" * 2_000_000, " " * 10**6, "🌍" * 10**6)] * 3
        inputs = set(children(served.process.pid)) - set(engines(served))
        with held(*inputs):  # none of them is done before others have been served
            posted = [asyncio.create_task(many.post(CHAT, json={"model": "tiny", "messages": m})) for m in huge]
            async with asyncio.timeout(PATIENCE):
                while (await asyncio.to_thread(gauges, http, PROCESSING))[PROCESSING] < len(huge):
                    await asyncio.sleep(0.02)
            for _ in range(10):
                assert (await many.get("/health")).status_code == 200
                assert (await many.post("/v1/completions", json=asked)).status_code == 200
            assert not any(task.done() for task in posted)
        for task in posted:
            assert error_of(await task)["code"] == "context_length_exceeded"


@pytest.mark.asyncio
async def test_R085_of_64_streams_some_leave_and_some_are_wrong(served: Served, http: httpx2.Client, tiny: LLM) -> None:
    """The others end, with the very tokens that each gets alone, and nothing is held afterwards."""
    count, most = 64, 24
    prompts = [f"question {i}: " + "why " * (i % 7) for i in range(count)]
    params = SamplingParams(temperature=0, max_tokens=most, ignore_eos=True)
    alone = [tiny.generate(prompt, params)[0].outputs[0] for prompt in prompts]
    draw = random.Random(3)
    fate = dict.fromkeys(draw.sample(range(count), count // 10), "leaves")
    fate |= dict.fromkeys(draw.sample([i for i in range(count) if i not in fate], count // 20), "is wrong")
    client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE)

    async def ask(i: int) -> tuple[str, list[str]] | None:
        more: dict[str, Any] = {"extra_body": {"ignore_eos": True}, "max_tokens": most, "temperature": 0, "logprobs": 0}
        if fate.get(i) == "is wrong":
            with pytest.raises(openai.BadRequestError):
                await client.completions.create(model="tiny", prompt=prompts[i], n=0, stream=True, **more)
            return None
        stream = await client.completions.create(model="tiny", prompt=prompts[i], stream=True, **more)
        text, tokens = "", list[str]()
        async for chunk in stream:
            (choice,) = chunk.choices
            text += choice.text
            tokens += (choice.logprobs.tokens or []) if choice.logprobs else []
            if fate.get(i) == "leaves" and len(text) > 5:
                await stream.close()
                return None
        return text, tokens

    found = await asyncio.gather(*map(ask, range(count)))
    name = tiny.engine.inputs.token_text
    for i, output in enumerate(alone):
        expected = None if i in fate else (output.text, [name(token) for token in output.token_ids])
        assert found[i] == expected, prompts[i]
    assert sum(answer is None for answer in found) == len(fate) == 9
    await asyncio.to_thread(wait_until_idle, http)


@pytest.fixture(scope="module")
def impatient(start: Start, llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that waits for nobody, and lets few wait for it."""
    config = tmp_path_factory.mktemp("config") / "serve.yaml"
    config.write_text("idle-timeout: 1\nwrite-timeout: 1\nmax-queued-requests: 4\nmax-num-seqs: 2\ndtype: float32\n")
    with start(str(llava_folder), "--served-model-name", "tiny", "--config", str(config)) as served, shared(served):
        yield served


def test_R005_who_is_slow_to_ask_is_let_go(impatient: Served) -> None:
    """Meanwhile others are served."""
    host, _, port = impatient.url.removeprefix("http://").partition(":")
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    sent = [head[:50]] * 10 + [head] * 10 + [b""]
    with contextlib.ExitStack() as stack, httpx2.Client(base_url=impatient.url, timeout=PATIENCE) as http:
        waiting = []
        for said in sent:
            waiting.append(stack.enter_context(socket.create_connection((host, int(port)), PATIENCE)))
            waiting[-1].sendall(said)
        assert http.post(CHAT, json={"model": "tiny", "messages": asking("x"), "max_tokens": 2}).status_code == 200
        answers = [connection.recv(65536) for connection in waiting]
    assert answers[:10] == [b""] * 10
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[10:20])
    assert answers[20] == b""  # who says nothing at all


def test_R086_who_does_not_read_is_dropped(impatient: Served) -> None:
    body = {
        **LONG,
        "max_tokens": 450,
        "messages": asking("x"),
        "n": 8,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
    }
    deaf = [connect(impatient, body, receive_buffer=4096) for _ in range(2)]
    impatient.wait_for("did not read its reply")
    with httpx2.Client(base_url=impatient.url, timeout=PATIENCE) as http:
        wait_until_idle(http)
    for connection in deaf:
        connection.close()


def test_R087_too_many_are_refused_and_the_others_end(impatient: Served) -> None:
    with contextlib.ExitStack() as stack, httpx2.Client(base_url=impatient.url, timeout=PATIENCE) as http:
        body = {**LONG, "messages": asking("x")}
        with held(*engines(impatient)):  # nobody's turn comes before all have asked
            waiting = {stack.enter_context(connect(impatient, body)) for _ in range(40)}
            refused: set[socket.socket] = set()
            while len(refused) < 36:
                ready = select.select(list(waiting - refused), [], [], PATIENCE)[0]
                assert ready, f"{len(refused)} were refused"
                refused.update(ready)
        for connection in refused:
            status, headers, answer = reply(connection)
            assert (status, answer["error"]["code"]) == (503, "overloaded")
            assert headers["retry-after"]
        accepted = [reply(connection) for connection in waiting - refused]
        assert [status for status, _, _ in accepted] == [200] * 4
        assert len({answer["choices"][0]["message"]["content"] for _, _, answer in accepted}) == 1
        wait_until_idle(http)
        assert gauges(http, "engine_num_requests_running") == {"engine_num_requests_running": 0}


@pytest.mark.parametrize(
    ("path", "asked"),
    [(CHAT, {"messages": asking("x"), "logprobs": True}), ("/v1/completions", {"prompt": ["x", "y"], "logprobs": 0})],
)
def test_R088_what_a_stream_took_is_told_before_what_ended_it(
    there: httpx2.Client, path: str, asked: dict[str, Any]
) -> None:
    for seconds in (0.6, 5, 40):  # until some tokens come in time
        body = {**ENDLESS, **asked, "stream": True, "stream_options": {"include_usage": True}, "timeout": seconds}
        with there.stream("POST", path, json=body) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
        if len(lines) > 3:
            break
    assert lines[-1] == "[DONE]"
    *chunks, usage, error = map(json.loads, lines[:-1])
    assert error["error"]["code"] == "request_timeout"
    assert usage["choices"] == []
    found = [chunk["choices"][0]["logprobs"] or {} for chunk in chunks]
    sent = sum(len(logprobs.get("content") or logprobs.get("tokens") or ()) for logprobs in found)
    assert usage["usage"]["completion_tokens"] == sent > 0
    assert usage["usage"]["prompt_tokens"] > 0

"""Nothing that a client sends holds up the event loop: no callback takes the processor for more than some milliseconds."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.inputs import CHARS_PER_TOKEN
from core.server.app import build_app
from core.server.client import EngineClient
from core.server.garbage import left_alone
from core.server.generation import EVENT_TOKENS
from core.server.json_body import MAX_REST, parse
from core.server.main import Host, listen
from core.server.models import Models
from core.server.settings import ServerSettings
from core.server.start import served_model

from ..endless import LENGTH
from .conftest import PATIENCE, asking, data_uri, error_of, png

CHAT = "/v1/chat/completions"
MOST_SECONDS = 0.020
"""Of the processor, for one callback."""
TRIES = 3
"""What takes too long does so each time; a neighbour on the machine, which makes a processor slower too, now and then."""


class Watch:
    """Notes which callbacks of one thread's event loop take the processor longest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, thread: threading.Thread) -> None:
        self.taken: list[tuple[float, str]] = []
        real = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            if threading.current_thread() is not thread:
                return real(handle)
            start = time.thread_time()
            real(handle)
            self.taken.append((time.thread_time() - start, repr(handle)))
            return None

        monkeypatch.setattr(asyncio.Handle, "_run", run)

    @property
    def longest(self) -> list[tuple[float, str]]:
        """The five that took longest, the worst first."""
        return sorted(self.taken, reverse=True)[:5]


class Inside:
    """A server in a thread of this process, whose engine is in its own as ever."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._began, self._end = folder, Future[str](), asyncio.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.thread.start()
        self.url = self._began.result(PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"dtype": "float32", "block_size": 16, "kv_cache_bytes": 32 * 2**20}
        try:
            self.client = client = await EngineClient.create(str(self._folder), **options)
        except BaseException as error:
            self._began.set_exception(error)
            raise
        settings = ServerSettings(port=0, write_timeout=PATIENCE)
        served = Models({"tiny": served_model("tiny", client)})
        self.app = build_app(served, settings)
        host = Host(self.app, settings, listen(settings))
        serving = asyncio.create_task(host.server.serve(sockets=[host.listener]))
        host.listener.listen()
        with left_alone():
            self._began.set_result(f"http://127.0.0.1:{host.listener.getsockname()[1]}")
            await self._end.wait()
        host.server.should_exit = True
        await serving
        await client.close()

    def late_reader(self, path: str, body: dict[str, Any]) -> bytes:
        """What is streamed to a client that reads the first bytes, and the others when the engine has long ended."""
        return asyncio.run_coroutine_threadsafe(self._read_late(path, body), self._loop).result(PATIENCE)

    async def _read_late(self, path: str, body: dict[str, Any]) -> bytes:
        content, reply = json.dumps(body).encode(), bytearray()
        incoming = [{"type": "http.request", "body": content}]

        async def receive() -> Any:
            return incoming.pop() if incoming else await self._loop.create_future()  # it does not leave

        async def send(message: Any) -> None:
            part = message.get("body", b"")
            if part.startswith((b"data: ", b"event: ")) and not reply:
                while self.client.stats().gauges.levels.running:
                    await asyncio.sleep(0.01)
            if not part.startswith(b": "):  # a comment, where the first event took long
                reply.extend(part)

        headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode()}
        await self.app({**scope, "scheme": "http", "query_string": b"", "root_path": "", "headers": headers,
                        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send)  # fmt: skip
        return bytes(reply)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.thread.join(PATIENCE)


@pytest.fixture(scope="module")
def inside(llava_folder: Path) -> Iterator[Inside]:
    server = Inside(llava_folder)
    yield server
    server.end()


@pytest.fixture
def http(inside: Inside) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=inside.url, timeout=PATIENCE) as found:
        yield found


def pictures() -> dict[str, Any]:
    """Three pictures, together near the most that a request may have."""
    large = png(0, 2200, 2200)
    assert len(large) * 4 > 54 * 2**20
    return {"model": "tiny", "messages": asking("what?", *[data_uri(large)] * 3), "max_tokens": 2, "temperature": 0}


def many_texts() -> dict[str, Any]:
    asked = {"model": "tiny", "messages": asking("x"), "max_tokens": 256, "ignore_eos": True, "n": 16}
    return {**asked, "logprobs": True, "top_logprobs": 20, "temperature": 1}


def many_tokens() -> dict[str, Any]:
    return {"model": "tiny", "prompt": [9] * 10**6}


def long_text() -> dict[str, Any]:
    return {"model": "tiny", "messages": asking("long " * 2**21)}


def some_junk() -> dict[str, Any]:
    return {"model": "tiny", "messages": [[1]] * 10**6}


ASKED: list[tuple[Callable[[], dict[str, Any]], str, int]] = [
    (pictures, CHAT, 200),
    (many_texts, CHAT, 200),
    (many_tokens, "/v1/completions", 400),
    (long_text, CHAT, 400),
    (some_junk, CHAT, 400),
]


@pytest.mark.parametrize(("body", "path", "status"), ASKED, ids=[body.__name__ for body, _, _ in ASKED])
def test_R092_no_request_holds_up_the_loop(
    inside: Inside, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, body: Any, path: str, status: int
) -> None:
    content = json.dumps(body()).encode()
    http.post(path, json={"model": "tiny", "messages": asking("x"), "prompt": "x", "max_tokens": 2})

    def ask() -> None:
        response = http.post(path, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == status, response.text[:500]

    assert_it_turns(inside, monkeypatch, ask)


def assert_it_turns(inside: Inside, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], None]) -> None:
    """The loop turns while this is asked."""
    longest = []
    for _ in range(TRIES):
        with monkeypatch.context() as patched:
            watch = Watch(patched, inside.thread)
            ask()
        assert len(watch.taken) > 10
        longest.append(watch.longest)
        if watch.longest[0][0] < MOST_SECONDS:
            return
    raise AssertionError(f"a callback took the processor too long, {TRIES} times: {longest}")


MANY = 480
"""Tokens: as many as the model's sequences hold beside a prompt."""
MUCH: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": MANY,
    "ignore_eos": True,
    "n": 2,
    "temperature": 1,
    "stream": True,
}
LATE: dict[str, dict[str, Any]] = {
    CHAT: {**MUCH, "messages": asking("x"), "logprobs": True, "top_logprobs": 20},
    "/v1/completions": {**MUCH, "prompt": "x", "logprobs": 20},
}


def tokens_of(event: dict[str, Any]) -> int:
    """How many tokens with log-probabilities a chunk brings."""
    found = event["choices"][0]["logprobs"] or {}
    return len(found.get("content") or found.get("tokens") or ())


@pytest.mark.parametrize("path", LATE)
def test_R092_what_piles_up_for_a_slow_reader_does_not_hold_up_the_loop(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def ask() -> None:
        counts = [
            tokens_of(json.loads(line)) for line in data_of(inside.late_reader(path, LATE[path])) if line != "[DONE]"
        ]
        assert sum(counts) == 2 * MANY
        assert max(counts) == EVENT_TOKENS, "nothing piled up"

    assert_it_turns(inside, monkeypatch, ask)


def test_R092_the_end_of_a_response_does_not_hold_up_the_loop(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"model": "tiny", "input": "x", "max_output_tokens": MANY, "top_logprobs": 20, "temperature": 0}

    def ask() -> None:
        events = [json.loads(line) for line in data_of(inside.late_reader("/v1/responses", {**asked, "stream": True}))]
        (content,) = events[-1]["response"]["output"][0]["content"]
        assert len(content["logprobs"]) == MANY
        assert content["text"] == "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")

    assert_it_turns(inside, monkeypatch, ask)


def data_of(stream: bytes) -> list[str]:
    """The data of its events."""
    return [line.removeprefix("data: ") for line in stream.decode().split("\n") if line.startswith("data: ")]


def test_R092_no_form_holds_up_the_loop(inside: Inside, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        response = http.post("/v1/audio/transcriptions", files={"file": ("x.wav", os.urandom(24 * 2**20))})
        assert error_of(response)["code"] == "unsupported_task"

    assert_it_turns(inside, monkeypatch, ask)


@pytest.mark.parametrize("text", ["a" * 2_000_000, " " * 10**6, "🌍" * 10**6], ids=["word", "blanks", "emoji"])
def test_R017_no_huge_prompt_holds_up_the_loop(
    inside: Inside, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """So whoever asks meanwhile, such as for /health, waits for no more than that."""

    def ask() -> None:
        response = http.post(CHAT, json={"model": "tiny", "messages": asking(text)})
        assert error_of(response)["code"] == "context_length_exceeded"
        assert http.get("/health").status_code == 200

    assert_it_turns(inside, monkeypatch, ask)


# ---- what is taken out of large bodies ------------------------------------------------------------------------------

LARGE = base64.b64encode(bytes(range(256)) * 1000).decode()


def part(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [more]}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "asked",
    [
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE}"}),
        part(type="image_url", image_url=f" DATA:;base64,{LARGE}"),
        part(type="input_audio", input_audio={"data": LARGE, "format": "wav"}),
        part(type="audio_url", audio_url={"url": f"data:audio/wav;base64,{LARGE}"}),
    ],
)
def test_media_of_large_bodies_arrive_as_bytes(asked: dict[str, Any], indent: int | None) -> None:
    found = parse(bytearray(json.dumps(asked, indent=indent).encode()))
    (given,), (made,) = asked["messages"][0]["content"], found["messages"][0]["content"]
    held = next(made[name] for name in given if name != "type")
    data = held if isinstance(held, bytes) else next(iter(held.values()))
    assert data == base64.b64decode(LARGE)


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": LARGE},
        {"prompt": f'"{LARGE}" \\"{LARGE}'},
        {"messages": [{"role": "user", "content": LARGE}]},
        {"metadata": {"url": f"data:image/png;base64,{LARGE}"}},
        part(type="image_url", image_url={"url": LARGE}),
        part(type="image_url", image_url={"url": f"data:image/png,{LARGE}"}),
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE}="}),
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE[:-4]}AA==AAAA"}),
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE[:9]}\n{LARGE}"}),
        part(type="image_url", image_url={"url": f"data:image/png;base64,{LARGE[:9]}é{LARGE}"}),
        part(type="text", text=LARGE, other=[{"url": f"data:;base64,{LARGE}"}]),
        {"a": 1, " " * 100_000: {}},
    ],
)
def test_all_else_is_what_json_says(asked: dict[str, Any]) -> None:
    for ascii in (True, False):
        body = json.dumps(asked, ensure_ascii=ascii).encode()
        assert parse(bytearray(body)) == json.loads(body) == asked


@pytest.mark.parametrize("cut", [b'"', b"", b'"}', b'"]}]}]', b'" x'])
def test_R001_a_large_body_that_is_cut_is_no_json(cut: bytes, inside: Inside, http: httpx2.Client) -> None:
    body = (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:;base64,' + LARGE.encode()
    )
    response = http.post(CHAT, content=body + cut, headers={"Content-Type": "application/json"})
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_R005_what_is_left_without_media_is_bounded(http: httpx2.Client) -> None:
    body = json.dumps({"model": "tiny", "messages": asking(" x" * (MAX_REST // 2))}).encode()
    response = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("data", "code"), [(bytes(100_000), "invalid_image"), (png(0, 400, 400)[:200_000], "invalid_image")]
)
def test_R026_a_large_picture_that_is_none(http: httpx2.Client, data: bytes, code: str) -> None:
    response = http.post(CHAT, json={"model": "tiny", "messages": asking("x", data_uri(data))})
    assert (response.status_code, error_of(response)["code"]) == (400, code)


# ---- as many tokens as a request may bring, and text that makes as many ----------------------------------------------

TOKENS = 2**20


@pytest.fixture(scope="module")
def roomy(endless_folder: Path) -> Iterator[Inside]:
    """A server whose prompts may be long."""
    server = Inside(endless_folder)
    yield server
    server.end()


def to_text(http: httpx2.Client) -> None:
    response = http.post("/detokenize", json={"tokens": [*range(260, 310)] * (TOKENS // 50)})
    assert response.json()["prompt"]


def to_tokens(http: httpx2.Client) -> None:
    text = "go on 🌍 " * (LENGTH * CHARS_PER_TOKEN // 8)
    found = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) > LENGTH


def to_nothing(http: httpx2.Client) -> None:
    response = http.post("/detokenize", json={"tokens": [*range(260, 310)] * (TOKENS // 50) + [10**6]})
    assert error_of(response)["param"] == f"tokens.{TOKENS // 50 * 50}"


@pytest.mark.parametrize("ask", [to_text, to_tokens, to_nothing])
def test_R092_no_number_of_tokens_holds_up_the_loop(
    roomy: Inside, monkeypatch: pytest.MonkeyPatch, ask: Callable[[httpx2.Client], None]
) -> None:
    with httpx2.Client(base_url=roomy.url, timeout=PATIENCE) as http:
        http.post("/tokenize", json={"prompt": "x"})
        assert_it_turns(roomy, monkeypatch, lambda: ask(http))

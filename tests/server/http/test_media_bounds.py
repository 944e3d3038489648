"""What is fetched for a request: within its time, for as long as it is wanted, in its turn, and counted as its memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message as Event

from core.errors import MediaFetchError, MediaForbiddenError, OverloadedError, RequestTimeoutError
from core.media import fetch
from core.server import body, fetches
from core.server.body import BodyReader, Held
from core.server.media import MediaDoor, Opened
from core.server.models import ServedModel
from core.server.protocol.chat import Message
from core.server.settings import ServerSettings

from .conftest import ENGINE, KEY, PATIENCE, Served, Start, asking, data_uri, error_of, png
from .media_host import MediaHost

CHAT = "/v1/chat/completions"
NEVER = 1000.0
ENDS = """
import asyncio, threading
from core.server.fetches import Fetches

async def main():
    begun = threading.Event()
    def endless(halt):
        begun.set()
        threading.Event().wait()
    fetching = asyncio.create_task(Fetches().run(endless))
    await asyncio.to_thread(begun.wait)

asyncio.run(main())
"""


class Door:
    """A door for the media of requests, which are made up here, as are their clients and their model."""

    def __init__(self, host: MediaHost) -> None:
        self.host = host
        places = {
            "allowed_media_hosts": (f"localhost:{host.port}",),
            "allowed_media_networks": ("127.0.0.0/8", "::1/128"),
        }
        settings = ServerSettings(**cast(Any, places))
        self.door, self.reader = MediaDoor(settings), BodyReader(settings)
        takes = [SimpleNamespace(modality="image", limit=None)]
        self.model = ServedModel("tiny", cast(Any, SimpleNamespace(plan=SimpleNamespace(media=takes))), (), ())

    async def open(self, *urls: str, timeout: float = NEVER, leave: asyncio.Event | None = None) -> Opened:
        """Open what a client sends that leaves when it is told to."""
        leave = leave or asyncio.Event()

        async def receive() -> Event:
            await leave.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http", "headers": []}, receive)
        messages = [Message.model_validate(message) for message in asking("what is it?", *urls)]
        with Held(self.reader) as request.state.held:
            opened = await self.door.open(request, messages, self.model, timeout)
            assert self.reader.held >= sum(len(image) for image in images(opened) if isinstance(image, bytes))
            return opened

    @contextlib.asynccontextmanager
    async def opening(self, *urls: str) -> AsyncIterator[asyncio.Task[Opened]]:
        """Within, they are being opened."""
        task = asyncio.create_task(self.open(*urls))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def images(opened: Opened) -> list[Any]:
    """What pictures have become."""
    return [part["image"] for part in opened.messages[0]["content"] if part["type"] == "image"]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other threads bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def asked(host: MediaHost, path: str) -> bool:
    """Whether somebody has asked for it."""
    return any(seen == path for seen, _ in host.seen)


@pytest.fixture(scope="module")
def own_host() -> Iterator[MediaHost]:
    """A host of this file's own: what it has seen, nobody else asked for."""
    with MediaHost() as host:
        yield host


@pytest.fixture
def door(own_host: MediaHost, monkeypatch: pytest.MonkeyPatch) -> Door:
    """Nothing that is fetched ends by itself, and there is one place."""
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", NEVER)
    monkeypatch.setattr(fetches, "AT_A_TIME", 1)
    own_host.seen.clear()
    own_host.left.clear()
    return Door(own_host)


# ---- the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_is_fetched_takes_from_the_requests_time(door: Door) -> None:
    sent = await door.open(data_uri(png()), timeout=7.0)
    assert sent.timeout == 7.0
    fetched = await door.open(f"{door.host.url}/picture/1", timeout=NEVER)
    assert images(fetched) == [png(1)]
    assert 0 < fetched.timeout < NEVER


@pytest.mark.asyncio
async def test_R088_a_deadline_passes_while_something_is_fetched(door: Door) -> None:
    with pytest.raises(RequestTimeoutError, match=r"0\.2 s"):
        await door.open(f"{door.host.url}/trickle/", timeout=0.2)
    await until(lambda: door.door.fetches.running == 0)


@pytest.mark.asyncio
async def test_R088_a_deadline_passes_while_others_are_fetched(door: Door) -> None:
    async with door.opening(f"{door.host.url}/trickle/others"):
        await until(lambda: asked(door.host, "/trickle/others"))
        with pytest.raises(RequestTimeoutError):
            await door.open(f"{door.host.url}/picture/", timeout=0.2)
        assert door.door.fetches.waiting == 0
    assert not asked(door.host, "/picture/")


@pytest.mark.asyncio
async def test_who_leaves_has_nothing_fetched(door: Door) -> None:
    leave = asyncio.Event()
    opening = asyncio.create_task(door.open(f"{door.host.url}/trickle/left", leave=leave))
    await until(lambda: asked(door.host, "/trickle/left"))
    leave.set()
    with pytest.raises(ClientDisconnect):
        await opening
    await until(lambda: "/trickle/left" in door.host.left)


@pytest.mark.asyncio
async def test_when_one_fails_the_others_are_not_fetched_on(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetches, "AT_A_TIME", 2)
    door = Door(door.host)
    with pytest.raises(MediaFetchError, match="404"):
        await door.open(*(f"{door.host.url}/{path}" for path in ("trickle/beside", "status/404", "picture/5")))
    await until(lambda: door.door.fetches.running == door.door.fetches.waiting == 0)
    assert not asked(door.host, "/picture/5")


@pytest.mark.asyncio
async def test_all_urls_are_looked_at_before_one_is_fetched(door: Door) -> None:
    with pytest.raises(MediaForbiddenError):
        await door.open(f"{door.host.url}/picture/", "http://nobody.invalid/x.png")
    assert not door.host.seen


@pytest.mark.asyncio
async def test_only_so_many_wait(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetches, "MOST_WAITING", 2)
    async with door.opening(*(f"{door.host.url}/trickle/{i}" for i in range(3))) as first:
        await until(lambda: door.host.seen)
        assert (door.door.fetches.running, door.door.fetches.waiting) == (1, 2)
        with pytest.raises(OverloadedError, match="try again"):
            await door.open(f"{door.host.url}/picture/7")
        assert images(await door.open(data_uri(png()))) == [data_uri(png())]  # nothing that would have to wait
        first.cancel()
        await until(lambda: door.door.fetches.running == 0)
    assert images(await door.open(f"{door.host.url}/picture/7")) == [png(7)]


@pytest.mark.asyncio
async def test_what_was_fetched_is_memory_of_requests(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"{door.host.url}/picture/{i}" for i in range(2)]
    monkeypatch.setattr(body, "BUFFERED_BYTES", len(png(0)) + len(png(1)))
    assert images(await door.open(*urls)) == [png(0), png(1)]
    assert door.reader.held == 0
    door.reader.held = 1  # another request's
    with pytest.raises(OverloadedError):
        await door.open(*urls)
    assert door.reader.held == 1


def test_no_fetch_holds_up_the_end() -> None:
    subprocess.run([sys.executable, "-c", ENDS], timeout=PATIENCE, check=True)


# ---- a server ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_R088_a_server_fetches_within_the_deadline(http: httpx2.Client, media_host: MediaHost, stream: bool) -> None:
    messages = asking("x", f"{media_host.url}/trickle/deadline")
    response = http.post(CHAT, json={"model": "tiny", "messages": messages, "timeout": 0.5, "stream": stream})
    assert (response.status_code, error_of(response)["code"]) == (504, "request_timeout")


@pytest.mark.parametrize("route", [CHAT, "/v1/responses", "/tokenize"])
def test_R085_who_leaves_a_server_that_fetches_has_left(served: Served, media_host: MediaHost, route: str) -> None:
    name = f"leaves-{route.rpartition('/')[2]}"
    url = f"{media_host.url}/trickle/{name}"
    given = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    request = {"model": "tiny", **({"input": given} if "responses" in route else {"messages": asking("x", url)})}
    content = json.dumps(request)
    head = [f"POST {route} HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", f"X-Request-Id: {name}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", content]
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall("\r\n".join(head).encode())
        wait_for(lambda: asked(media_host, f"/trickle/{name}"))
    served.wait_for(f"request_id={name} .*outcome=left")


def test_fetches_show_in_the_metrics(http: httpx2.Client) -> None:
    text = http.get("/metrics").text
    assert 'engine_num_media_fetches{state="running"}' in text
    assert 'engine_num_media_fetches{state="waiting"}' in text


@pytest.mark.slow
def test_R089_a_second_signal_ends_a_server_that_fetches(start: Start, llava_folder: Path, own_host: MediaHost) -> None:
    place = ["--allowed-media-host", f"localhost:{own_host.port}", "--allowed-media-network", "127.0.0.0/8"]
    place += ["--allowed-media-network", "::1/128", "--drain-timeout", "1000"]
    with (
        start(str(llava_folder), "--served-model-name", "tiny", *ENGINE, *place) as served,
        ThreadPoolExecutor() as pool,
    ):
        messages = asking("x", f"{own_host.url}/trickle/end")
        ask = {"url": served.url + CHAT, "json": {"model": "tiny", "messages": messages}, "timeout": PATIENCE}
        asking_for_it = pool.submit(lambda: httpx2.post(**cast(Any, ask)))
        wait_for(lambda: asked(own_host, "/trickle/end"))
        served.process.send_signal(signal.SIGTERM)
        served.wait_for("ending")
        assert served.end() == 128 + signal.SIGTERM
        response = asking_for_it.result()
        assert (response.status_code, error_of(response)["code"]) == (503, "draining")
        assert "Traceback" not in served.log


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what the server brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)

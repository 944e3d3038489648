"""`engine serve` as a process of its own, on tiny checkpoints, once for all tests; and the application without any engine."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import torch
from engine_plugin_llava import tiny as llava_tiny
from engine_plugin_whisper import tiny as whisper_tiny
from PIL import Image

from core import LLM
from core.server.app import build_app
from core.server.gate import Gate
from core.server.models import Models
from core.server.settings import ServerSettings

from ..endless import make_endless

PATIENCE = 120.0
"""Seconds after which a test has failed, on however busy a machine."""
KEY = "sk-test-2242"
ENGINE = ["--dtype", "float32", "--block-size", "16", "--kv-cache-bytes", str(32 * 2**20)]
Start = Callable[..., "AbstractContextManager[Served]"]


class Served:
    """A server in a process of its own.

    Args:
        arguments: Of `engine serve`.
        environment: More of it.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._arguments, self._environment = arguments, environment
        self.is_doubtful = False
        self._begin(0)

    def _begin(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "core.cli", "serve", "--port", str(port), *self._arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(self._environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line on standard error."""
        until = time.monotonic() + PATIENCE
        with self._news:
            while True:
                found = next((m for line in self.lines if (m := re.search(pattern, line))), None)
                if found is not None:
                    return found
                assert self._reader.is_alive(), f"the server has ended: {''.join(self.lines)}"
                assert time.monotonic() < until, f"no {pattern!r} in {''.join(self.lines)}"
                self._news.wait(0.2)

    @property
    def url(self) -> str:
        """Where it is, once it is up."""
        return self.wait_for(r"serves (http\S+)/v1")[1]

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return "".join(self.lines)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and for its last words; its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def renew(self) -> None:
        """Put another one into its place."""
        port = int(self.url.rpartition(":")[2])
        self.process.kill()
        self.ended()
        self._begin(port)
        self.is_doubtful = not self.url


SHARED: list[Served] = []
"""Servers of several tests. After one that has failed, or broken a server, there is another, so that it alone fails."""


@contextlib.contextmanager
def shared(served: Served) -> Iterator[Served]:
    """A server for several tests, once it is up."""
    assert served.url
    SHARED.append(served)
    try:
        yield served
    finally:
        SHARED.remove(served)


def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """What a test that has failed left behind is not known."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        for served in SHARED:
            served.is_doubtful = True


@pytest.fixture(autouse=True)
def _sound_servers() -> None:
    for served in SHARED:
        if served.is_doubtful or served.process.poll() is not None:
            served.renew()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    llava_tiny.llava(0, folder)
    return folder


@pytest.fixture(scope="session")
def endless_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA with much to say, for who stops it."""
    folder = tmp_path_factory.mktemp("endless")
    make_endless(folder)
    return folder


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper whose texts are short, and which is sure of what it says: what it doubts it would draw anew."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    from sdk.testing.tiny import save_tiny

    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = whisper_tiny.whisper_tokenizer()
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=whisper_tiny.CHUNK_SECONDS)
    entries = {**whisper_tiny.generation_entries(tokenizer), "_from_model_config": False}
    save_tiny(
        WhisperForConditionalGeneration(whisper_tiny.whisper_config(tokenizer, max_target_positions=32)),
        folder,
        seed=0,
        processor=WhisperProcessor(extractor, tokenizer),
        generation_config=entries,
        gains={**whisper_tiny.GAINS, "decoder.embed_tokens": 24.0, "decoder.embed_positions": 128.0},
    )
    return folder


@pytest.fixture(scope="session")
def start() -> Start:
    """Starts servers of a test's own."""

    @contextlib.contextmanager
    def started(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
        served = Served(*arguments, environment=environment)
        try:
            yield served
        finally:
            if served.process.poll() is None:
                served.process.kill()
                served.process.wait(PATIENCE)

    return started


@pytest.fixture(scope="session")
def media_host() -> Iterator[Any]:
    """A host of pictures and clips on this machine."""
    from .media_host import MediaHost

    with MediaHost() as host:
        yield host


@pytest.fixture(scope="session")
def served(start: Start, llava_folder: Path, whisper_folder: Path, media_host: Any) -> Iterator[Served]:
    """Two models, a key, and one host that media may be fetched from."""
    names = ["--served-model-name", "tiny", "--served-model-name", "ear"]
    media = ["--allowed-media-host", f"localhost:{media_host.port}", "--allowed-media-network", "127.0.0.0/8"]
    media += ["--allowed-media-network", "::1/128"]
    limits = ["--max-audio-seconds", "20", "--max-queued-requests", "128", "--limit", "image=4"]
    with start(str(llava_folder), str(whisper_folder), *names, "--api-key", KEY, *ENGINE, *media, *limits) as found:
        with shared(found):
            yield found
        assert found.end() == 0, found.log


@pytest.fixture(scope="session")
def tiny(llava_folder: Path) -> Iterator[LLM]:
    """The model behind `tiny`, in this process."""
    with LLM(str(llava_folder), dtype="float32", block_size=16, disable_progress=True) as llm:
        yield llm


@pytest.fixture(scope="session")
def ear(whisper_folder: Path) -> Iterator[LLM]:
    """The model behind `ear`, in this process."""
    with LLM(str(whisper_folder), dtype="float32", block_size=16, disable_progress=True) as llm:
        yield llm


@pytest.fixture(scope="session")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE)


@pytest.fixture
def aclient(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE)


@pytest.fixture(scope="session")
def http(served: Served) -> Iterator[httpx2.Client]:
    """For what the `openai` client would not send."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=served.url, headers=headers, timeout=PATIENCE) as found:
        yield found


@pytest.fixture
def idle(http: httpx2.Client) -> Iterator[None]:
    """Tests that every engine holds nothing when the test is over."""
    yield
    wait_until_idle(http)


def gauges(http: httpx2.Client, *names: str) -> dict[str, float]:
    """Sums of gauges over the models."""
    found = dict.fromkeys(names, 0.0)
    for line in http.get("/metrics").text.splitlines():
        name, _, rest = line.partition("{")
        if name in found:
            found[name] += float(rest.rpartition(" ")[2])
    return found


BUSY = (
    "engine_num_requests_running",
    "engine_num_requests_waiting",
    "engine_num_requests_processing",
    "engine_kv_cache_pages_used",
    "engine_encoder_states_used",
)


def wait_until_idle(http: httpx2.Client) -> None:
    """Wait until nothing runs or waits, and no page is held."""
    until = time.monotonic() + PATIENCE
    while any((found := gauges(http, *BUSY)).values()):
        assert time.monotonic() < until, found
        time.sleep(0.05)


@contextlib.contextmanager
def held(*pids: int) -> Iterator[None]:
    """Processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def application(**settings: Any) -> Gate:
    """The application without any model: what is refused before a model is asked for."""
    return build_app(Models({}), ServerSettings(**settings))


@contextlib.asynccontextmanager
async def calling(app: Gate, key: str | None = None) -> Any:
    """A client of an application in this process."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://server", headers=headers) as found:
        yield found


def png(seed: int = 0, width: int = 70, height: int = 50) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def data_uri(data: bytes, mime: str = "image/png") -> str:
    """A picture as clients send it."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def wav(seconds: float = 1.0, rate: int = 16000, seed: int = 0) -> bytes:
    """A clip of noise."""
    samples = np.random.default_rng(seed).integers(-8000, 8000, round(seconds * rate)).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def asking(text: str, *urls: str) -> list[dict[str, Any]]:
    """A conversation of one question, about pictures."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}] if urls else text}]


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error of a reply, whose form is checked."""
    body = response.json()
    assert set(body) == {"error"}, body
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    assert response.headers["x-request-id"]
    assert len(response.content) <= 2048
    assert not re.search(r"0x[0-9a-f]{6}|Traceback|/site-packages/|/home/|/tmp/", response.text)
    return error

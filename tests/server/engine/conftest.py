"""Tiny checkpoints, the same model in this process and in one of its own, and a model that does as badly as it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from PIL import Image

from core import LLM, RequestOutput, SamplingParams
from core.server import supervisor
from core.server.client import EngineClient
from sdk import registry

PATIENCE = 90.0
"""Seconds after which a test has failed, on however busy a machine."""
OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "kv_cache_bytes": 32 * 2**20}
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
LENGTH = 32_768
ENDLESS = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
"""For who leaves, is stopped or loses the engine: of a model with room for them, nobody waits for the last token."""
SLEEP, RAISE, ABORT, HOLD = 301, 302, 303, 304
"""Tokens that a bad model cannot bear."""
NOT_BY_ITSELF = dict.fromkeys((SLEEP, RAISE, ABORT, HOLD), -100.0)
HANGING = "hanging"
"""A file beside a bad model or processor, which is there when it hangs."""
BAD_MODEL = f"""
import ctypes, os, time
from engine_plugin_llama.model import LlamaForCausalLM

def hangs():
    open(os.path.join(os.path.dirname(__file__), "{HANGING}"), "w").close()

class Bad(LlamaForCausalLM):
    def forward(self, input_ids, positions, **kwargs):
        tokens = set(input_ids.tolist())
        if {SLEEP} in tokens:
            hangs()
            time.sleep(1000)
        if {RAISE} in tokens:
            raise RuntimeError("a fault of the model's")
        if {ABORT} in tokens:
            os.abort()
        if {HOLD} in tokens:
            hangs()
            ctypes.PyDLL(None).sleep(1000)  # and no other thread of Python's runs meanwhile
        return super().forward(input_ids, positions, **kwargs)

class Gone(LlamaForCausalLM):
    def __init__(self, *, ctx):
        if os.environ.get("BAD_MODEL_HOME") != str(os.getpid()):
            os._exit(3)
        super().__init__(ctx=ctx)
"""
Result = list[tuple[str, list[int], str | None]]
Start = Callable[..., AbstractContextManager[EngineClient]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    llama_tiny.llama(0, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": LENGTH}))
    return folder


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    llava_tiny.llava(0, folder)
    return folder


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Iterator[LLM]:
    with LLM(str(llama_folder), **OPTIONS) as llm:
        yield llm


class Shared:
    """One client for many tests; another one after a test that has failed, which may have left it in any state.

    Args:
        make: Starts one.
    """

    def __init__(self, make: Callable[[], EngineClient]) -> None:
        self._make, self._made = make, list[EngineClient]()
        self.is_doubtful = False

    def get(self) -> EngineClient:
        """One that can be relied on."""
        if self.is_doubtful:
            self.close()
        if not self._made:
            self._made.append(self._make())
        return self._made[0]

    def close(self) -> None:
        """End it."""
        while self._made:
            asyncio.run(self._made.pop().close())
        self.is_doubtful = False


SHARED: list[Shared] = []


def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """So that a test that has failed is the only one."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        for held in SHARED:
            held.is_doubtful = True


@contextmanager
def shared(make: Callable[[], EngineClient]) -> Iterator[Shared]:
    """A client for several tests."""
    made = Shared(make)
    SHARED.append(made)
    try:
        yield made
    finally:
        SHARED.remove(made)
        made.close()


@pytest.fixture(scope="session")
def opened(llama_folder: Path) -> Iterator[Shared]:
    with shared(lambda: EngineClient(str(llama_folder), max_queued_requests=100, **OPTIONS)) as made:
        yield made


@pytest_asyncio.fixture
async def client(opened: Shared) -> AsyncIterator[EngineClient]:
    """A client that every test leaves as it found it."""
    client = await asyncio.to_thread(opened.get)
    await client.ready()
    yield client
    await until_idle(client)
    assert client.is_ready


@pytest.fixture
def start(llama_folder: Path) -> Start:
    """Starts a client of a test's own."""

    @contextmanager
    def opened(**options: Any) -> Iterator[EngineClient]:
        client = EngineClient(str(llama_folder), **{**OPTIONS, **options})
        try:
            yield client
        finally:
            client._thread.close()

    return opened


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has the tiny Llama run by a bad model."""
    (tmp_path / "a_bad_model.py").write_text(textwrap.dedent(BAD_MODEL))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BAD_MODEL_HOME", str(os.getpid()))

    def register(name: str = "Bad") -> None:
        capabilities = "engine_plugin_llama.plugin:llama_capabilities"
        registry.register(
            "LlamaForCausalLM", f"a_bad_model:{name}", replace=True, role="causal-lm", capabilities=capabilities
        )

    yield register
    registry.unregister("LlamaForCausalLM")
    sys.modules.pop("a_bad_model", None)


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.01)


def is_idle(client: EngineClient) -> bool:
    """Whether nothing runs or waits, on either side, and all pages are free."""
    levels, here = client.stats().gauges.levels, client._thread._sequences
    return not (levels.waiting or levels.running or levels.pages_held or here._held or here._keys)


async def until_idle(client: EngineClient) -> None:
    """Until nothing of any request is left."""
    await until(lambda: is_idle(client))
    assert not client._streams
    assert client.stats().processing == 0


@contextmanager
def no_new_engine() -> Iterator[None]:
    """Meanwhile no engine process is started: what happens within does not wait for the next one."""
    go, real = threading.Event(), supervisor.Child

    def child(*arguments: Any) -> Any:
        go.wait()
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(supervisor, "Child", child)
        try:
            yield
        finally:
            go.set()


async def last(stream: AsyncIterator[RequestOutput]) -> RequestOutput:
    async with asyncio.timeout(PATIENCE):
        outputs = [output async for output in stream]
    return outputs[-1]


def result(output: RequestOutput) -> Result:
    return [(c.text, list(c.token_ids), c.finish_reason) for c in output.outputs]


def expected(llm: LLM, prompt: Any, params: SamplingParams) -> Result:
    return result(llm.generate(prompt, params)[0])


def prompt_ids(seed: int, length: int, vocab: int = 300) -> list[int]:
    """A prompt of random ids, none of them special."""
    return np.random.default_rng(seed).integers(8, vocab, length).tolist()


def picture(seed: int = 0, width: int = 70, height: int = 50) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than a name that its parent has not read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    """Wait until a process has ended."""
    until = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < until, f"process {pid} stays"
        time.sleep(0.02)

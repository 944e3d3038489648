"""However an engine process ends, who waits hears of it at once, the next one serves, and no process stays behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import LLM
from core.errors import (
    EngineDeadError,
    EngineError,
    InvalidConfigError,
    MissingWeightsError,
    PluginContractError,
    PluginRuntimeError,
    StartupError,
)
from core.plugins import ResolvedPlugin
from core.server import supervisor
from core.server.client import EngineClient
from core.server.supervisor import State

from .conftest import (
    ABORT,
    ENDLESS,
    HANGING,
    HOLD,
    LONG,
    NOT_BY_ITSELF,
    OPTIONS,
    PATIENCE,
    RAISE,
    SHORT,
    SLEEP,
    Start,
    expected,
    is_running,
    last,
    no_new_engine,
    prompt_ids,
    result,
    until,
    until_idle,
    wait_until_gone,
)

pytestmark = pytest.mark.asyncio
Register = Callable[..., None]


async def failures(client: EngineClient, count: int = 5) -> asyncio.Future[Any]:
    """Requests without an end of their own, which the engine has; the first is being computed."""
    params = replace(ENDLESS, logit_bias=NOT_BY_ITSELF)
    streams = [client.generate(prompt_ids(i, 9), params) for i in range(count)]
    await anext(streams[0])
    waiting = asyncio.gather(*(last(s) for s in streams), return_exceptions=True)
    await until(lambda: len(client._thread._sequences) == count)
    return waiting


async def test_R090_kill_9_in_mid_flight(start: Start, llama: LLM) -> None:
    with start(max_num_seqs=2, engine_restarts=2) as client:
        await client.ready()
        assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)
        served = client.stats().gauges.totals.output_tokens
        for number in (1, 2, 3):
            waiting = await failures(client)
            pid = client._thread.pid
            assert pid is not None
            folder = client._thread._child._folder  # type: ignore[union-attr]
            with no_new_engine():  # who waits hears of it at once, and not when there is another
                os.kill(pid, signal.SIGKILL)
                async with asyncio.timeout(PATIENCE):
                    found = await waiting
                assert [type(e) for e in found] == [EngineDeadError] * 5
                assert len({id(e) for e in found}) == 5
                assert "SIGKILL" in str(found[0])
                assert found[0].status == 503
                assert found[0].partial_results[0].outputs[0].token_ids
                if number == 3:
                    break
                assert client.state is State.RESTARTING
                with pytest.raises(EngineDeadError, match="being started again"):
                    await last(client.generate("hello", SHORT))
                with pytest.raises(EngineDeadError):
                    await client.check_health()
            await until(lambda: client.is_ready)
            assert client.stats().restarts == number
            assert not folder.exists()
            assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)
            await until_idle(client)
            assert client.stats().gauges.totals.output_tokens > served
            served = client.stats().gauges.totals.output_tokens
        async with asyncio.timeout(PATIENCE):
            cause = await client.ended()
        assert cause is not None
        assert "SIGKILL" in str(cause)
        assert client.state is State.DEAD
        assert client.died is cause
        with pytest.raises(EngineDeadError, match="SIGKILL"):
            await last(client.generate("hello", SHORT))


@pytest.mark.parametrize(("token", "why"), [(RAISE, "a fault of the model's"), (ABORT, "SIGABRT")])
async def test_R090_a_model_that_breaks_the_engine(
    start: Start, llama: LLM, bad: Register, token: int, why: str
) -> None:
    bad()
    with start(engine_restarts=1) as client:
        await client.ready()
        waiting = await failures(client)
        with pytest.raises(EngineDeadError, match=why) as caught:
            await last(client.generate([9, token, 9], SHORT))
        assert [type(e) for e in await waiting] == [EngineDeadError] * 5
        if token == RAISE:
            assert isinstance(caught.value.__cause__, PluginRuntimeError)
        else:
            assert "in forward" in str(caught.value), "where it crashed"
        await until(lambda: client.is_ready)
        assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)


@pytest.mark.parametrize("token", [SLEEP, HOLD], ids=["sleeps", "holds the interpreter"])
async def test_R072_a_model_that_hangs_is_found(
    start: Start,
    llama: LLM,
    bad: Register,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    token: int,
) -> None:
    monkeypatch.setattr(supervisor, "DUMP_SECONDS", PATIENCE)
    bad()
    with start(engine_restarts=1) as client:
        await client.ready()
        assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)
        pid = client._thread.pid
        waiting = await failures(client)
        hanging = asyncio.create_task(last(client.generate([9, token, 9], SHORT)))
        await until((tmp_path / HANGING).exists)
        with no_new_engine():  # for which it would be too impatient
            client._thread.watchdog_timeout = 0.2
            with caplog.at_level(logging.ERROR), pytest.raises(EngineDeadError, match="a step hangs"):
                await hanging
            assert [type(e) for e in await waiting] == [EngineDeadError] * 5
            assert "a_bad_model.py" in caplog.text, "its stacks"
            assert "in forward" in caplog.text
            assert pid is not None
            wait_until_gone(pid)
            client._thread.watchdog_timeout = PATIENCE
        await until(lambda: client.is_ready)
        assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)


async def test_R072_an_engine_without_work_does_not_hang(start: Start, llama: LLM) -> None:
    """It is heard of time and again, and sooner than its silence would be noticed."""
    with start(engine_restarts=0, watchdog_timeout=PATIENCE) as client:
        await client.ready()
        assert (await last(client.generate("hello", SHORT))).finished
        steps = client.stats().gauges.totals.steps
        heard: set[float] = set()
        await until(lambda: heard.add(client._thread._heard) or len(heard) > 3)  # type: ignore[func-returns-value]
        assert client.stats().gauges.totals.steps == steps
        assert client._thread._setup is not None
        assert client._thread._setup.heartbeat <= PATIENCE / 4
        assert client.is_ready


# ---- how it begins --------------------------------------------------------------------------------------------------


async def starting(folder: Path, **options: Any) -> EngineError:
    client = EngineClient(str(folder), **{**OPTIONS, **options})
    with pytest.raises(EngineError) as caught:
        async with asyncio.timeout(PATIENCE):
            await client.ready()
    assert client.state in (State.DEAD, State.LOADING)
    assert await client.ended() is caught.value
    assert client.state is State.DEAD
    assert client.stats().restarts == 0
    with pytest.raises(EngineDeadError):
        await last(client.generate("hello", SHORT))
    await client.close()
    return caught.value


async def test_R090_what_cannot_be_loaded_says_why_once(
    llama_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    with caplog.at_level(logging.ERROR):
        error = await starting(folder)
    assert isinstance(error, MissingWeightsError)
    with pytest.raises(MissingWeightsError) as caught:
        LLM(str(folder), **OPTIONS)
    assert str(error) == str(caught.value)
    assert len([r for r in caplog.records if r.name.startswith("core.server")]) == 1


async def test_R090_what_cannot_be_configured_needs_no_process(llama_folder: Path, tmp_path: Path) -> None:
    assert isinstance(await starting(llama_folder, max_num_seq=3), InvalidConfigError)
    assert isinstance(await starting(tmp_path), EngineError)


async def test_R090_a_process_that_ends_while_it_loads(llama_folder: Path, bad: Register) -> None:
    bad("Gone")
    error = await starting(llama_folder)
    assert "exit status 3" in str(error)


async def test_R055_a_worker_that_finds_another_plugin_says_so(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ResolvedPlugin.record
    monkeypatch.setattr(ResolvedPlugin, "record", lambda self: {**record(self), "sha256": "0" * 64})
    error = await starting(llama_folder)
    assert isinstance(error, PluginContractError)
    assert "not those of the main process" in str(error)


async def test_create_leaves_nothing_behind(llama_folder: Path) -> None:
    with pytest.raises(StartupError):
        await EngineClient.create(str(llama_folder), **OPTIONS, no_such_option=1)


async def test_R093_nothing_is_imported_from_the_current_folder(
    start: Start, llama: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("core", "torch", "zmq"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "") + os.pathsep)  # as careless shells have it
    with start() as client:
        await client.ready()
        assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)


# ---- how it ends with its parent ------------------------------------------------------------------------------------

PARENT = """
import asyncio, os, sys
from core import SamplingParams
from core.server.client import EngineClient
from sdk import registry

folder, how, bad_token = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["BAD_MODEL_HOME"] = str(os.getpid())
registry.register(
    "LlamaForCausalLM", "a_bad_model:Bad", role="causal-lm", capabilities="engine_plugin_llama.plugin:llama_capabilities"
)

async def main():
    client = await EngineClient.create(folder, dtype="float32", block_size=16, kv_cache_bytes=32 * 2**20)
    endless = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    stream = client.generate("hello", endless)
    await anext(stream)
    print(client._thread.pid, client.engine.pool._slots[0]._child.pid, flush=True)
    if how == "leaves":
        raise SystemExit(0)
    if how == "killed while it hangs":
        await anext(client.generate([9, bad_token], endless))
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["killed", "killed while it hangs", "leaves"])
async def test_R090_no_process_survives_its_parent(llama_folder: Path, tmp_path: Path, bad: Register, how: str) -> None:
    path = os.pathsep.join(p for p in sys.path if p)
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(PARENT), str(llama_folder), how, str(HOLD)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 2
    if how.startswith("killed"):
        assert all(is_running(pid) for pid in pids)
        if how == "killed while it hangs":
            await until((tmp_path / HANGING).exists)
        parent.kill()
    await asyncio.to_thread(parent.wait, PATIENCE)
    for pid in pids:
        await asyncio.to_thread(wait_until_gone, pid)


async def test_R089_a_signal_to_the_group_does_not_end_the_engine(start: Start, llama: LLM) -> None:
    with start() as client:
        await client.ready()
        stream = client.generate("hello", LONG)
        await anext(stream)
        pid = client._thread.pid
        assert pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert result(await last(stream)) == expected(llama, "hello", LONG)
        assert client._thread.pid == pid

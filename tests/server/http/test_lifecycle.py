"""A server's life: it starts or says why not, ends when it is told to, and outlives its engine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from .conftest import ENGINE, PATIENCE, Served, Start, asking, error_of, gauges, held
from .trouble import install

NAME = ["--served-model-name", "tiny"]
LONG: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 8_000, "extra_body": {"ignore_eos": True}}
RUNNING = ("engine_num_requests_running", "engine_num_requests_waiting")
ENDLESS = {**LONG, "max_tokens": 20_000}
"""Of a model that has room for them: nobody waits for the last one."""


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`engine …` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "core.cli", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run something beside the test; what comes of it."""
    out: list[Any] = []

    def work() -> None:
        try:
            out.append(function())
        except Exception as e:
            out.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, out


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == pid:
                found.append(int(folder.name))
    return found


def engines(served: Served) -> list[int]:
    """Of these, the processes that have a model."""
    found = []
    for pid in children(served.process.pid):
        with contextlib.suppress(OSError):
            if b"engine_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_R091_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("serve", "demo/llava", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "cannot listen" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo/llava", "--prot", "1"], "--port"),
        (["demo/llava", "--port", "x"], "--port"),
        (["demo/llava", "--port", "99999"], "port"),
        (["demo/llava", "--dtype", "int3"], "dtype"),
        (["demo/llava", "--log-level", "loud"], "log_level"),
        (["demo/llava", "--api-key", " "], "api_keys"),
        (["demo/llava", "--limit", "image"], "--limit"),
        (["demo/llava", "--served-model-name", "a", "--served-model-name", "b"], "names"),
        (["demo/llava", "demo/llava"], "two models are called"),
        (["demo/llava", "--allowed-media-host", "http://x"], "allowed_media_hosts"),
        ([], "which model"),
    ],
)
def test_what_is_wrong_with_options_is_said_in_a_line(arguments: list[str], says: str) -> None:
    ended = run("serve", *arguments, "--dry-run")
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_R090_what_is_wrong_with_a_model_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["NobodyRunsThis"], "model_type": "llama"}')
    ended = run("serve", str(tmp_path), "--port", "0")
    assert ended.returncode == 2
    assert ended.stderr.count("NobodyRunsThis") == 1, ended.stderr
    assert "Traceback" not in ended.stderr


def test_flags_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(
        "model: demo/llava\nport: 1111\nhost: 127.0.0.3\nmax-model-len: 64\nlimit-mm-per-prompt: {image: 1}\n"
    )
    told = run(
        "serve", "--config", str(config), "--port", "3333", "--dry-run", environment={"ENGINE_HOST": "127.0.0.2"}
    )
    assert told.returncode == 0, told.stderr
    assert "127.0.0.2:3333" in told.stdout
    assert "64 tokens" in told.stdout
    config.write_text("prot: 1\n")
    refused = run("serve", "--config", str(config))
    assert refused.returncode == 2
    assert "did you mean 'port'" in refused.stderr


def test_the_banners_command_works(served: Served) -> None:
    served.wait_for("curl")
    command = next(line for line in served.lines if "curl" in line).strip()
    from .conftest import KEY

    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "ENGINE_API_KEY": KEY}, capture_output=True, text=True, check=False
    )
    if done.returncode == 127:
        pytest.skip("curl is not installed")
    assert '"chat.completion"' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("demo", "says"), [("demo/llava", "red circle"), ("demo/whisper", "text")])
def test_the_banners_command_shows_what_a_demo_can_do(start: Start, demo: str, says: str) -> None:
    with start(demo, "--kv-cache-bytes", str(2**24)) as served:
        command = served.wait_for(r"^\s+(curl .*)$")[1]
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        if done.returncode == 127:
            pytest.skip("curl is not installed")
        assert says in done.stdout, (command, done)
        assert "Warning" not in served.log


@pytest.mark.slow
def test_R089_R090_a_servers_whole_life(start: Start, endless_folder: Path, tmp_path: Path) -> None:
    """Its engine is killed in mid-flight, and replaced; then it is told to end in mid-stream, and ends the stream first."""
    hold = tmp_path / "hold"
    choice, environment = install(tmp_path / "site"), {"PYTHONPATH": str(tmp_path / "site"), "TROUBLE_HOLD": str(hold)}
    arguments = [str(endless_folder), *NAME, *ENGINE, *choice, "--drain-timeout", "1000"]
    with start(*arguments, environment=environment) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
        with httpx2.Client(base_url=served.url, timeout=PATIENCE) as http:
            # kill -9 of the engine while it answers; there is no other before all has been looked at
            waiting = [
                in_thread(lambda: client.chat.completions.create(messages=asking("x"), n=8, **ENDLESS))
                for _ in range(3)
            ]
            stream = client.chat.completions.create(messages=asking("x"), stream=True, **ENDLESS)
            next(iter(stream))
            wait_until_running(http, 3 * 8 + 1)
            hold.touch()
            (engine,) = engines(served)
            os.kill(engine, signal.SIGKILL)
            with pytest.raises(openai.APIError):
                for _ in stream:
                    pass
            for thread, out in waiting:
                thread.join(PATIENCE)
                assert isinstance(out[0], (openai.InternalServerError, openai.APIStatusError)), out
                assert out[0].status_code == 503
            assert http.get("/health").status_code == 503
            hold.unlink()
            until = time.monotonic() + PATIENCE
            while http.get("/health").status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert client.chat.completions.create(model="tiny", messages=asking("x"), max_tokens=2).choices

            # the end, in the middle of a stream
            stream = client.chat.completions.create(messages=asking("x"), stream=True, **LONG)
            chunks = [next(iter(stream))]
            with held(*engines(served)):  # the stream does not end before all has been looked at
                served.process.send_signal(signal.SIGTERM)
                served.wait_for("ending")
                refused = http.post("/v1/chat/completions", json={"model": "tiny", "messages": asking("x")})
                assert refused.status_code == 503
                assert error_of(refused)["code"] == "draining"
                assert http.get("/ready").status_code == 503
            chunks += list(stream)
            assert chunks[-1].choices[0].finish_reason == "length"
        own = children(served.process.pid)
        assert served.ended() == 0, served.log
        assert not any(is_running(pid) for pid in own)


@pytest.mark.slow
def test_R089_a_second_signal_ends_it_at_once(start: Start, endless_folder: Path) -> None:
    with start(str(endless_folder), *NAME, *ENGINE, "--drain-timeout", "1000") as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
        slow = in_thread(lambda: client.chat.completions.create(messages=asking("x"), n=16, **ENDLESS))
        with httpx2.Client(base_url=served.url, timeout=PATIENCE) as http:
            wait_until_running(http, 16)
        served.process.send_signal(signal.SIGTERM)
        served.wait_for("ending")
        own = children(served.process.pid)
        assert served.end() == 143
        slow[0].join(PATIENCE)
        assert isinstance(slow[1][0], openai.APIError)
        assert not any(is_running(pid) for pid in own)


@pytest.mark.slow
def test_R089_who_is_not_done_in_time_is_cut_off(start: Start, endless_folder: Path) -> None:
    with start(str(endless_folder), *NAME, *ENGINE, "--drain-timeout", "0") as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
        stream = client.chat.completions.create(messages=asking("x"), stream=True, n=8, **ENDLESS)
        next(iter(stream))
        own = children(served.process.pid)
        assert served.end() == 0
        with contextlib.suppress(openai.APIError):  # it ends with an error, or is cut off
            list(stream)
        assert not any(is_running(pid) for pid in own)
        assert "did not end in time" in served.log


@pytest.mark.slow
def test_R090_the_engine_does_not_outlive_the_server(start: Start, llava_folder: Path) -> None:
    with start(str(llava_folder), *NAME, *ENGINE) as served:
        assert served.url
        own = children(served.process.pid)
        assert own
        served.end(signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while any(is_running(pid) for pid in own):
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.slow
def test_R090_an_engine_that_dies_again_and_again_ends_the_server(start: Start, llava_folder: Path) -> None:
    with start(str(llava_folder), *NAME, *ENGINE, "--engine-restarts", "0") as served:
        assert served.url
        (engine,) = engines(served)
        os.kill(engine, signal.SIGKILL)
        assert served.ended() == 1
        assert "error:" in served.lines[-1]


@pytest.mark.slow
def test_R090_an_engine_that_dies_while_it_loads_is_no_start(start: Start, llava_folder: Path, tmp_path: Path) -> None:
    seen, site = tmp_path / "seen", tmp_path / "site"
    choice = install(site)
    environment = {"PYTHONPATH": str(site), "TROUBLE": "load", "TROUBLE_SEEN": str(seen)}
    with start(str(llava_folder), *NAME, *ENGINE, *choice, environment=environment) as served:
        until = time.monotonic() + PATIENCE
        while not seen.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        (engine,) = engines(served)
        os.kill(engine, signal.SIGKILL)
        assert served.ended() == 2
        assert "SIGKILL" in served.log
        assert "Traceback" not in served.log


def wait_until_running(http: httpx2.Client, count: int) -> None:
    """Wait until the engine has so many sequences."""
    until = time.monotonic() + PATIENCE
    while sum(gauges(http, *RUNNING).values()) < count:  # some may have been preempted by now
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

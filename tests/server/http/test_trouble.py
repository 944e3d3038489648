"""A plugin that misbehaves, behind a server: what it breaks is one request, or a server that says why it does not start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core import LLM, SamplingParams

from .conftest import ENGINE, PATIENCE, Served, Start, asking, data_uri, error_of, png, shared, wait_until_idle
from .test_fuzz import ROUTES
from .test_lifecycle import children, is_running
from .trouble import ABORT, SLEEP, install

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
ASKED = {"model": "tiny", "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("site")
    return folder, install(folder)


@pytest.fixture(scope="module")
def troubled(start: Start, site: tuple[Path, list[str]], llava_folder: Path) -> Iterator[Served]:
    folder, choice = site
    name = ["--served-model-name", "tiny", "--input-timeout", "12"]
    with start(str(llava_folder), *name, *choice, *ENGINE, environment={"PYTHONPATH": str(folder)}) as served:
        with shared(served):
            yield served


@pytest.mark.parametrize(
    ("width", "status", "code"), [(ABORT, 400, "media_decode_failed"), (SLEEP, 504, "request_timeout")]
)
def test_R043_R072_a_processor_that_breaks_or_hangs_ends_its_own_request(
    troubled: Served, tiny: LLM, width: int, status: int, code: str
) -> None:
    messages = asking("what is it?", data_uri(png(1)))
    mine = tiny.chat(messages, SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].text
    with httpx2.Client(base_url=troubled.url, timeout=PATIENCE) as http:
        others: list[Any] = []

        def ask() -> None:
            others.append(http.post(CHAT, json={**ASKED, "messages": messages}).json())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads[:2]:
            thread.start()
        bad = http.post(CHAT, json={**ASKED, "messages": asking("x", data_uri(png(0, width)))})
        threads[2].start()
        for thread in threads:
            thread.join(PATIENCE)
        assert (bad.status_code, error_of(bad)["code"]) == (status, code)
        assert [found["choices"][0]["message"]["content"] for found in others] == [mine] * 3
        assert http.get("/health").status_code == 200
        wait_until_idle(http)


def test_R057_a_plugin_adds_no_route(troubled: Served) -> None:
    with httpx2.Client(base_url=troubled.url, timeout=PATIENCE) as http:
        assert http.get("/trouble").status_code == 404
        described = {path.replace(":path", "") for path in http.get("/openapi.json").json()["paths"]}
        assert described == set(ROUTES)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["find", "load"])
def test_R089_a_signal_while_a_model_is_loaded_ends_the_server(
    start: Start, site: tuple[Path, list[str]], llava_folder: Path, tmp_path: Path, where: str, number: int
) -> None:
    folder, choice = site
    seen = tmp_path / "seen"
    environment = {"PYTHONPATH": str(folder), "TROUBLE": where, "TROUBLE_SEEN": str(seen)}
    with start(str(llava_folder), *choice, *ENGINE, environment=environment) as served:
        until = time.monotonic() + PATIENCE
        while not seen.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        own = children(served.process.pid)
        assert own
        assert served.end(number) == 128 + number
        assert "Traceback" not in served.log
        assert not any(is_running(pid) for pid in own)


@pytest.mark.parametrize(("where", "says"), [("find", "finding the model"), ("load", "loading the model")])
def test_R072_a_plugin_that_hangs_while_it_is_loaded_is_named(
    start: Start, site: tuple[Path, list[str]], llava_folder: Path, tmp_path: Path, where: str, says: str
) -> None:
    folder, choice = site
    seen = tmp_path / "seen"
    environment = {"PYTHONPATH": str(folder), "TROUBLE": where, "TROUBLE_SEEN": str(seen)}
    for seconds in (8, 24, 72):  # a busy machine takes long to come to where it hangs
        with start(
            str(llava_folder), *choice, *ENGINE, "--load-timeout", str(seconds), environment=environment
        ) as served:
            assert served.ended() == 2
        if seen.exists():
            break
    assert f"error: {says}" in served.log
    assert f"engine_plugin_trouble{os.sep}model.py" in served.log, "what it was doing"

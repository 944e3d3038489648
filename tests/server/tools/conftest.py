"""Tiny models for the tools around the server: in this process, and behind a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import AsyncLLM
from core.server.client import EngineStats
from core.server.gauges import Gauges
from core.server.models import Models
from core.server.start import served_model
from core.server.supervisor import State

from ..endless import make_endless
from ..http.conftest import (  # two of these put a server up again after a test that has failed
    Served,
    _sound_servers,  # noqa: F401
    pytest_runtest_makereport,  # noqa: F401
)
from ..serving import serving

KEY = "sk-tools"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_endless(folder)
    return folder


class HereEngine(AsyncLLM):
    """What the application asks of an engine, without a process of its own."""

    def stats(self) -> EngineStats:
        """Nothing of note."""
        return EngineStats(State.READY, restarts=0, input_restarts=0, processing=0, gauges=Gauges())


@pytest.fixture(scope="module")
def models(tiny_folder: Path) -> Iterator[Models]:
    """`tiny`, in this process."""
    engine = HereEngine(str(tiny_folder), dtype="float32", disable_progress=True)
    yield Models({"tiny": served_model("tiny", engine)})  # type: ignore[arg-type]  # it serves as the client of one does
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> Iterator[Served]:
    options = ["--served-model-name", "tiny", "--api-key", KEY, "--dtype", "float32"]
    with serving(str(tiny_folder), *options, "--kv-cache-bytes", str(32 * 2**20)) as found:
        yield found

"""The fake speech model, opened once for each plugin that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core import LLM
from sdk import registry

from . import fake

Open = Callable[..., LLM]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech")
    fake.write_checkpoint(path)
    return path


@pytest.fixture
def open_llm(folder: Path) -> Iterator[Open]:
    """Opens the fake model with a class for speech; what is open is checked and closed at the end."""
    opened: list[LLM] = []

    def open_with(transcription: Any, tasks: tuple[str, ...] = (), **options: Any) -> LLM:
        registry.unregister(fake.ARCHITECTURE)
        fake.register(transcription, tasks)
        opened.append(LLM(str(folder), **{"dtype": "float32", "block_size": 16, "disable_progress": True, **options}))
        return opened[-1]

    try:
        yield open_with
        for llm in opened:
            assert llm.engine.pool.num_free == llm.engine.pool.num_pages
            assert not llm.engine.scheduler.has_work
            assert not llm.runner.jobs
    finally:
        registry.unregister(fake.ARCHITECTURE)
        for llm in opened:
            llm.close()

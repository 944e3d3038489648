"""The tiny checkpoint, the same in transformers, and clips of noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_plugin_whisper.plugin
import numpy as np
import pytest
import torch
from engine_plugin_whisper import tiny
from numpy.typing import NDArray

from sdk import Architecture
from sdk.testing.reference import load_hf, load_processor

RATE = 16_000
Clip = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def records() -> list[Architecture]:
    """The plugin's records."""
    return engine_plugin_whisper.plugin.engine_architectures()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint: clips of two seconds."""
    path = tmp_path_factory.mktemp("whisper")
    tiny.whisper(0, path)
    return path


@pytest.fixture(scope="session")
def hf(folder: Path) -> Any:
    """The same in transformers."""
    return load_hf(folder)


@pytest.fixture(scope="session")
def processor(folder: Path, records: list[Architecture]) -> Any:
    """The plugin's processor."""
    return load_processor(folder, records)


@pytest.fixture(scope="session")
def clip() -> Clip:
    """Noise whose loudness changes, of so many seconds; the same each time."""

    def noise(seed: int = 0, seconds: float = 1.3) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        count = round(seconds * RATE)
        loudness = np.abs(np.sin(np.arange(count) / RATE * rng.uniform(2, 9)))
        made: NDArray[np.float32] = (rng.standard_normal(count) * loudness * 0.2).astype(np.float32)
        return made

    return noise

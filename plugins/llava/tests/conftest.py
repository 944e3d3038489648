"""Checkpoints and pictures that the tests of LLaVA share."""

from __future__ import annotations

from pathlib import Path

import engine_plugin_llama.plugin
import engine_plugin_llava.plugin
import engine_plugin_towers.plugin
import numpy as np
import pytest
from engine_plugin_llava import tiny
from PIL import Image

from sdk import Architecture


@pytest.fixture(scope="session")
def records() -> list[Architecture]:
    """The records of the three plugins that LLaVA is made of."""
    plugins = (engine_plugin_llava.plugin, engine_plugin_llama.plugin, engine_plugin_towers.plugin)
    return [record for plugin in plugins for record in plugin.engine_architectures()]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    path = tmp_path_factory.mktemp("llava")
    tiny.llava(0, path)
    return path


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of three sizes and three modes."""
    rng = np.random.default_rng(0)
    sizes = [(48, 64), (33, 32), (90, 40)]
    found = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    return [found[0], found[1].convert("L"), found[2].convert("RGBA")]

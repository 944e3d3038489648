"""Checkpoints and pictures that the tests of Fuyu share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import engine_plugin_fuyu.plugin
import numpy as np
import pytest
from engine_plugin_fuyu import tiny
from PIL import Image

from sdk import Architecture

Draw = Callable[..., Image.Image]


@pytest.fixture(scope="session")
def records() -> list[Architecture]:
    """The plugin's records: Fuyu's, and that of its language model."""
    return engine_plugin_fuyu.plugin.engine_architectures()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint: patches of 8 by 8 pixels, a target of 64 by 48."""
    path = tmp_path_factory.mktemp("fuyu")
    tiny.fuyu(0, path)
    return path


@pytest.fixture(scope="session")
def draw() -> Draw:
    """A picture of noise, of this width, height and mode; the same each time."""

    def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
        noise = np.random.default_rng(width * 10_007 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(noise).convert(mode)

    return picture

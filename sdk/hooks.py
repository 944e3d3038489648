"""The one hook of the plugin mechanism, as a pluggy specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .spec import Architecture

PROJECT = "engine"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class EngineSpec:
    """What a plugin module may implement."""

    @hookspec(historic=True)
    def engine_architectures(self) -> list[Architecture]:
        """Return the architectures this plugin runs. Called once; must not import torch."""
        raise NotImplementedError

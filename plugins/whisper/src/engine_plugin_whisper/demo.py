"""The trained checkpoint that ships with this plugin: small enough for a wheel, and it writes down what it hears."""

from __future__ import annotations

from pathlib import Path

from sdk.shipped import shipped_folder


def path() -> Path:
    """The folder of the demo checkpoint; FileNotFoundError where the installation came without it."""
    return shipped_folder(__file__, "engine-plugin-whisper")

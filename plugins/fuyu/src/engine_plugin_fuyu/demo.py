"""The trained checkpoint that ships with this plugin: small enough for a wheel, and it says what it sees."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder of the demo checkpoint.

    Raises:
        FileNotFoundError: This installation came without it.
    """
    folder = Path(__file__).parent / "demo"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no checkpoint: install engine-plugin-fuyu from a wheel, or train one: training/train.py"
        )
    return folder

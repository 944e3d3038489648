"""Checkpoints that ship with a plugin, for `Architecture.demo`."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(beside: str, distribution: str) -> Path:
    """The folder `demo` beside a module, with the checkpoint in it.

    Args:
        beside: The module's `__file__`.
        distribution: Whose it is, for the message.

    Raises:
        FileNotFoundError: This installation came without it.
    """
    folder = Path(beside).parent / "demo"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no checkpoint: install {distribution} from a wheel, or train one: training/train.py"
        )
    return folder

"""Tells when a folder of the user's own shadows ours: `core` and `sdk` are plain names; the first on the path wins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from sdk.errors import StartupError

_HERE = Path(__file__).resolve().parent


def check_import_origin(*, current_folder: bool = False) -> list[str]:
    """Compare where `core` and `sdk` are imported from with what else bears these names on the path.

    Args:
        current_folder: Whether to look there too, where it is not on the path.

    Returns:
        What a user should know, a sentence each: other `core`s and `sdk`s that Python may import in the place of ours.

    Raises:
        StartupError: `core` and `sdk` come from two places, so one of them is not the one that the other was made for.
    """
    sdk = getattr(sys.modules.get("sdk"), "__file__", None)
    if sdk is None or Path(sdk).resolve().parent.parent != _HERE.parent:
        raise StartupError(
            f"core is imported from {_HERE} and sdk from {sdk or 'a folder without __init__.py'}. Both belong to "
            "engine-plugin-sdk and must come from one place: a folder named sdk of your own shadows ours; rename it, "
            "or start Python with -P, which keeps the current folder off the path",
            code="shadowed_import",
        )
    folders = [*sys.path, *([os.getcwd()] if current_folder else [])]
    return [
        f"{other} bears the name of a package of engine-plugin-sdk ({_HERE.parent / name}): Python started there, or "
        f"with {other.parent} first on its path, imports it instead. Rename it, or start Python with -P"
        for name in ("core", "sdk")
        for other in _others(name, folders)
    ]


def _others(name: str, folders: Iterable[str]) -> list[Path]:
    """Importable packages or modules of this name in these folders that are not ours."""
    found = []
    for folder in dict.fromkeys(Path(item or os.curdir).resolve() for item in folders):
        if folder == _HERE.parent:
            continue
        for candidate in (folder / name, folder / f"{name}.py"):
            if (candidate / "__init__.py").is_file() or (candidate.suffix == ".py" and candidate.is_file()):
                found.append(candidate)
    return found

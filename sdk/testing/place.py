"""Where in a plugin's own code an exception was raised."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_OURS = Path(__file__).resolve().parents[2]
_LIBRARIES = {"torch", "transformers", "tokenizers", "numpy", "PIL", "pluggy", "pydantic"}


def place_of(error: BaseException) -> str:
    """The innermost line of the plugin's own code among those that an exception passed, as a cause; `""`: there is none."""
    chain: list[BaseException] = []
    known: BaseException | None = error
    while known is not None and known not in chain:
        chain.append(known)
        known = known.__cause__
    frames = [frame for e in reversed(chain) for frame in traceback.extract_tb(e.__traceback__)]
    theirs = [frame for frame in frames if _is_plugins(frame.filename)]
    return f"raised below {theirs[-1].filename}:{theirs[-1].lineno}, in {theirs[-1].name}" if theirs else ""


def _is_plugins(filename: str) -> bool:
    """Whether a file is neither ours nor a library's nor Python's own."""
    path, standard = Path(filename), sysconfig.get_path("stdlib")
    if filename.startswith("<") or path.is_relative_to(_OURS / "sdk") or path.is_relative_to(_OURS / "core"):
        return False
    if path.is_relative_to(standard) and "site-packages" not in path.parts:
        return False
    return not _LIBRARIES & set(path.parts)

"""Models that plugins ship, under ids such as `demo/NAME`: no download, and something to look at."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from .errors import EngineError, InvalidRequestError, ModelNotFoundError
from .plugins import Catalog, ResolvedPlugin

PREFIX = "demo/"
EXAMPLE = "example.json"
"""In a demo's folder: `{"image": "example.png", "questions": […]}`, or `{"audio": ["example.flac"]}`."""


def find_demo(model: str) -> Path | None:
    """The folder of a shipped model; None when `model` is no demo id.

    Raises:
        ModelNotFoundError: No installed plugin ships it; those that do are listed.
    """
    if not model.startswith(PREFIX) or Path(model).is_dir():
        return None
    catalog = Catalog.installed()
    owners: dict[str, str] = {}
    for claim in catalog.claims():
        owners.setdefault(claim.distribution.rpartition("-")[2], claim.distribution)
    wanted = model.removeprefix(PREFIX)
    for claim in catalog.claims():
        if claim.distribution == owners.get(wanted) and claim.kind == "architecture":
            plugin = catalog.resolve(claim.name, pins={claim.name: claim.distribution})
            if plugin.architecture.demo is not None:
                return _folder(plugin)
    near = difflib.get_close_matches(wanted, owners, 1)
    hint = (
        f"did you mean {PREFIX}{near[0]}?" if near and near[0] != wanted else f"try: pip install engine-plugin-{wanted}"
    )
    raise ModelNotFoundError(f"no installed plugin ships {model!r}; {hint}", param="model")


def read_example(folder: Path, *names: str) -> list[Any]:
    """What a demo suggests to try: the entries of its `example.json`, one for each name.

    Raises:
        InvalidRequestError: The folder brings no such example.
    """
    try:
        example = json.loads((folder / EXAMPLE).read_text(encoding="utf-8"))
        return [example[name] for name in names]
    except (OSError, ValueError, KeyError) as e:
        raise InvalidRequestError(
            f"this model brings no example ({EXAMPLE} in its folder): {e}", param="--example"
        ) from e


def all_demos() -> list[str]:
    """Ids of every demo that an installed plugin ships.

    Raises:
        ModelNotFoundError: There is none.
    """
    catalog = Catalog.installed()
    names = sorted(
        {claim.distribution.rpartition("-")[2] for claim in catalog.claims() if claim.kind == "architecture"}
    )
    found = [f"{PREFIX}{name}" for name in names if _ships_demo(f"{PREFIX}{name}")]
    if not found:
        raise ModelNotFoundError(
            "no installed plugin ships a demo; try: pip install engine-plugin-llava", param="model"
        )
    return found


def _ships_demo(model: str) -> bool:
    try:
        return find_demo(model) is not None
    except EngineError:  # it ships none, or cannot be used
        return False


def _folder(plugin: ResolvedPlugin) -> Path:
    try:
        return Path(plugin.load("demo")())
    except OSError as e:
        raise ModelNotFoundError(f"{plugin.describe()}: its demo cannot be opened: {e}", param="model") from e

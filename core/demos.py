"""Models that plugins ship, under ids such as `demo/NAME`: no download, and something to look at."""

from __future__ import annotations

import difflib
from pathlib import Path

from .errors import ModelNotFoundError
from .plugins import Catalog, ResolvedPlugin

PREFIX = "demo/"


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


def _folder(plugin: ResolvedPlugin) -> Path:
    try:
        return Path(plugin.load("demo")())
    except OSError as e:
        raise ModelNotFoundError(f"{plugin.describe()}: its demo cannot be opened: {e}", param="model") from e

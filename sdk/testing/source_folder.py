"""A plugin that is not installed, from its source folder: found for as long as the kit looks at it."""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._api import ENTRY_POINT_GROUP, GROUP_PREFIX
from ..errors import InvalidConfigError
from .fake_dist import write_distribution


@contextmanager
def on_path(folder: Path) -> Iterator[str]:
    """Put a plugin's code and the metadata that its pyproject.toml would be installed with first on `sys.path`.

    Args:
        folder: The folder that holds pyproject.toml; the code is in `src`, or beside it.

    Yields:
        The distribution's name.

    Raises:
        InvalidConfigError: There is no pyproject.toml, or it declares no plugin.
    """
    project = _project(folder)
    source = folder / "src" if (folder / "src").is_dir() else folder
    with tempfile.TemporaryDirectory(prefix="engine-plugin-") as metadata:
        write_distribution(
            Path(metadata),
            project["name"],
            project.get("version", "0"),
            project["entry-points"],
            requires=project.get("dependencies", []),
            wheel=False,
        )
        added = [metadata, str(source.resolve())]
        sys.path[:0] = added
        try:
            yield project["name"]
        finally:
            for entry in added:
                sys.path.remove(entry)


def _project(folder: Path) -> dict[str, Any]:
    file = folder / "pyproject.toml"
    try:
        project: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError) as error:
        raise InvalidConfigError(f"{file} cannot be read: {error}") from error
    groups = [group for group in project.get("entry-points", {}) if group.startswith(GROUP_PREFIX)]
    if "name" not in project or not groups:
        raise InvalidConfigError(
            f'{file} declares no plugin: it needs a name and [project.entry-points."{ENTRY_POINT_GROUP}"]'
        )
    return project

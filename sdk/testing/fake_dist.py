"""Fakes an installed distribution: a folder with metadata and code that importlib-metadata finds on the path.

For tests of discovery, in `core` and in plugins; nothing is built and pip is not called.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

EntryPoints = Mapping[str, Mapping[str, str]]
"""Group → name → value, e.g. `{"engine.v1": {"FooForCausalLM": "foo.plugin"}}`."""


def write_distribution(
    folder: Path,
    name: str,
    version: str = "0.1.0",
    entry_points: EntryPoints | None = None,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    *,
    editable: bool = False,
    wheel: bool = True,
) -> Path:
    """Write a distribution as pip would have installed it.

    Args:
        folder: What stands for site-packages; put it on `sys.path` to have the distribution found.
        name, version: The distribution's.
        entry_points: Group → name → value.
        files: Path → text, dedented; parent packages get an `__init__.py` where none is given.
        requires: Requires-Dist lines.
        editable: Whether the metadata says that it was installed in editable mode.
        wheel: Whether it looks installed by pip at all; without, it is a folder that happens to be on the path.

    Returns:
        The dist-info folder.
    """
    written = [_write(folder, path, text) for path, text in _with_packages(files or {}).items()]
    info = f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    metadata = "\n".join([*lines, *(f"Requires-Dist: {item}" for item in requires), ""])
    written.append(_write(folder, f"{info}/METADATA", metadata))
    written.append(_write(folder, f"{info}/entry_points.txt", _as_ini(entry_points or {})))
    if wheel:
        written.append(_write(folder, f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"))
    if editable:
        direct = {"url": folder.resolve().as_uri(), "dir_info": {"editable": True}}
        written.append(_write(folder, f"{info}/direct_url.json", json.dumps(direct)))
    record = [_record_line(folder, path) for path in written]
    _write(folder, f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return folder / info


class FakeSite:
    """A folder that stands for site-packages, into which whole plugins are installed by a line each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def install(
        self,
        name: str,
        *architectures: str,
        version: str = "0.1.0",
        group: str = "engine.v1",
        model_types: tuple[str, ...] = (),
        requires: Sequence[str] = ("engine-plugin-sdk>=1.0,<2",),
        source: str | None = None,
        imports: str = "",
        files: Mapping[str, str] | None = None,
        folder: Path | None = None,
        editable: bool = False,
        wheel: bool = True,
        **fields: object,
    ) -> str:
        """Install a plugin whose model is an empty class.

        Args:
            name, version, requires, editable, wheel: As in `write_distribution`.
            architectures: What its metadata claims and its hook returns.
            group: The entry-point group.
            model_types: What it claims and returns as well.
            source: The plugin module's text, in the place of a sound one.
            imports: What a sound one does first.
            files: Further files, relative to its package.
            folder: Another place than this one.
            **fields: Further fields of every record.

        Returns:
            The name of its package.
        """
        package = re.sub(r"[-_.]+", "_", name).lower()
        module = f"{package}.plugin"
        given = {"model": f"{package}.model:Model", **({"model_types": model_types} if model_types else {}), **fields}
        points = {group: dict.fromkeys(architectures, module)}
        if model_types:
            points[f"{group}.model_types"] = dict.fromkeys(model_types, module)
        content = {
            "plugin.py": plugin_source(*architectures, imports=imports, **given) if source is None else source,
            "model.py": "class Model:\n    pass\n",
            **(files or {}),
        }
        texts = {f"{package}/{path}": text for path, text in content.items()}
        place = folder or self.folder
        write_distribution(place, name, version, points, texts, requires, editable=editable, wheel=wheel)
        importlib.invalidate_caches()
        return package


def plugin_source(*architectures: str, imports: str = "", **fields: object) -> str:
    """The text of a plugin module whose hook returns these architectures.

    Args:
        architectures: Their names.
        imports: Lines to put on top, e.g. what is to go wrong.
        **fields: Further fields of every record; `model` is `"missing:Model"` unless given.
    """
    given = {"model": "missing:Model", **fields}
    arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
    records = ", ".join(f"sdk.Architecture(name={name!r}, {arguments})" for name in architectures)
    hook = f"@sdk.hookimpl\ndef engine_architectures():\n    return [{records}]\n"
    return f'"""A plugin."""\nimport sdk\n{textwrap.dedent(imports)}\n{hook}'


def _with_packages(files: Mapping[str, str]) -> dict[str, str]:
    packages = {str(parent / "__init__.py") for path in files for parent in Path(path).parents if parent.name}
    return {**dict.fromkeys(sorted(packages), ""), **files}


def _write(folder: Path, path: str, text: str) -> str:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def _as_ini(entry_points: EntryPoints) -> str:
    sections = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    return "\n".join(sections)


def _record_line(folder: Path, path: str) -> str:
    content = (folder / path).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"

"""Fakes an installed distribution: a folder with metadata and code that importlib-metadata finds on the path.

For tests of discovery, in `core` and in plugins; nothing is built and pip is not called.
"""

from __future__ import annotations

import base64
import hashlib
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

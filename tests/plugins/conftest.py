"""A folder that stands for site-packages, in which tests install fake plugins."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from core.plugins import Catalog
from core.plugins.claims import scan
from sdk import registry
from sdk.testing.fake_dist import plugin_source, write_distribution


class Site:
    """Installs fake plugins into a folder on `sys.path`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        *architectures: str,
        source: str | None = None,
        imports: str = "",
        group: str = "engine.v1",
        model_types: tuple[str, ...] = (),
        claims: tuple[str, ...] | None = None,
        files: dict[str, str] | None = None,
        requires: tuple[str, ...] = ("engine-plugin-sdk>=0.1,<0.2",),
        version: str = "0.1.0",
        folder: Path | None = None,
        editable: bool = False,
        wheel: bool = True,
        **fields: Any,
    ) -> str:
        """Install a plugin; its package's name.

        Args:
            name: The distribution's.
            architectures: What its hook returns, and its metadata claims unless `claims` says otherwise.
            source: The plugin module's text, instead of a sound one.
            imports: What a sound one does first.
            files: Further files, relative to the package.
        """
        package = name.replace("-", "_").replace(".", "_").lower()
        module = f"{package}.plugin"
        if model_types:
            fields["model_types"] = model_types
        fields.setdefault("model", f"{package}.model:Model")
        text = source if source is not None else plugin_source(*architectures, imports=imports, **fields)
        claimed = architectures if claims is None else claims
        points = {group: dict.fromkeys(claimed, module)}
        if model_types:
            points[f"{group}.model_types"] = dict.fromkeys(model_types, module)
        content = {"plugin.py": text, "model.py": "class Model:\n    pass\n", **(files or {})}
        write_distribution(
            folder or self.folder,
            name,
            version,
            points,
            {f"{package}/{path}": text for path, text in content.items()},
            requires,
            editable=editable,
            wheel=wheel,
        )
        importlib.invalidate_caches()
        return package

    def catalog(self, *folders: Path, allowed: frozenset[str] | None = None) -> Catalog:
        """A catalog of these folders (by default this one) and of nothing else that may be installed."""
        path = [str(folder) for folder in folders or (self.folder,)]
        return Catalog(scan(importlib_metadata.Distribution.discover(path=path), allowed))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site-packages at the front of `sys.path`; what was imported from it or registered is forgotten."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in ("ENGINE_PLUGINS", "ENGINE_PLUGINS_STRICT"):
        monkeypatch.delenv(name, raising=False)
    modules, table = set(sys.modules), set(registry.registered())
    yield Site(folder)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for architecture in set(registry.registered()) - table:
        registry.unregister(architecture)

"""A folder that stands for site-packages, in which tests install fake plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdk import registry
from sdk.testing.fake_dist import FakeSite


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    """An empty site-packages at the front of `sys.path`; what was imported from it or registered is forgotten."""
    site = FakeSite(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(site.folder))
    for name in ("ENGINE_PLUGINS", "ENGINE_PLUGINS_STRICT"):
        monkeypatch.delenv(name, raising=False)
    modules, table = set(sys.modules), set(registry.registered())
    yield site
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for architecture in set(registry.registered()) - table:
        registry.unregister(architecture)

"""The house's rules ("Arrows" in the architecture page), checked on the source: who may import whom, and what is light.

Plugins are found by looking into `plugins/*/src`, so a new one is covered without an edit here.
"""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(ROOT.glob("plugins/*/src"))
HEAVY = ("torch", "transformers", "numpy")


def files_of(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


CORE, SDK, PLUGINS = files_of(ROOT / "core"), files_of(ROOT / "sdk"), files_of(*SOURCES)


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports_of(file: Path) -> Iterator[tuple[str, int, int]]:
    """(module, level, line) of every import statement, also those in functions and under TYPE_CHECKING."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, node.lineno


def importing(files: Iterable[Path], *packages: str) -> list[str]:
    """Where these files import one of these packages by its absolute name; a trailing `*` stands for any ending."""
    found = []
    for file in files:
        for module, level, line in imports_of(file):
            top = module.split(".")[0]
            names = (top == name or (name.endswith("*") and top.startswith(name[:-1])) for name in packages)
            if level == 0 and any(names):
                found.append(f"{file.relative_to(ROOT)}:{line} imports {module}")
    return found


def test_sdk_imports_nothing_of_core_and_nothing_of_a_plugin() -> None:
    assert importing(SDK, "core", "engine_plugin_*") == []


def test_core_imports_no_plugin() -> None:
    assert importing(CORE, "engine_plugin_*") == []


def test_plugins_never_import_core() -> None:
    assert importing(PLUGINS, "core") == []


def test_a_plugin_imports_another_only_through_the_registry() -> None:
    found = []
    for source in SOURCES:
        own = {package.name for package in source.iterdir()}
        lines = importing(files_of(source), "engine_plugin_*")
        found += [line for line in lines if line.split(" imports ")[1].split(".")[0] not in own]
    assert found == []


def test_only_kernels_import_triton() -> None:
    kernels = ROOT / "core" / "kernels"
    others = [file for file in (*CORE, *SDK, *PLUGINS) if not file.is_relative_to(kernels)]
    assert importing(others, "triton") == []


def test_inside_both_packages_imports_are_relative() -> None:
    assert importing(CORE, "core") + importing(SDK, "sdk") == []


def test_relative_imports_stay_within_their_package() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in (*CORE, *SDK)
        for _, level, line in imports_of(file)
        if level > len(file.relative_to(ROOT).parts) - 1
    ]
    assert found == []


def test_every_file_says_what_it_is_for() -> None:
    files = (*CORE, *SDK, *PLUGINS, *files_of(ROOT / "tests", ROOT / "benchmarks"))
    assert [str(file.relative_to(ROOT)) for file in files if not ast.get_docstring(tree_of(file))] == []


def names_of_our_plugins() -> tuple[set[str], set[str]]:
    """The architectures and the model_types of the plugins in this repository, and of those that it recommends."""
    known = json.loads((ROOT / "core" / "known_plugins.json").read_text(encoding="utf-8"))
    architectures = {name for names in known.values() for name in names}
    model_types: set[str] = set()
    for source in SOURCES:
        project = source.parent / "pyproject.toml"
        points = tomllib.loads(project.read_text())["project"].get("entry-points", {}) if project.is_file() else {}
        architectures |= set(points.get("engine.v1", {}))
        model_types |= set(points.get("engine.v1.model_types", {}))
    return architectures - {"*"}, model_types - {"*"}


def test_core_knows_no_architecture_and_no_model_type() -> None:
    architectures, model_types = names_of_our_plugins()
    found = []
    for file in CORE:
        text = file.read_text(encoding="utf-8")
        found += [f"{file.relative_to(ROOT)} names {name}" for name in sorted(architectures) if name in text]
        strings = {node.value for node in ast.walk(tree_of(file)) if isinstance(node, ast.Constant)}
        found += [f"{file.relative_to(ROOT)} has the string {name!r}" for name in sorted(model_types & strings)]
    assert found == []


def in_a_fresh_process(code: str) -> str:
    path = [str(ROOT), *map(str, SOURCES)]
    prelude = f"import sys; sys.path[:0] = {path!r}\n"
    done = subprocess.run([sys.executable, "-P", "-c", prelude + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PLUGIN_MODULES = [
    ".".join(file.relative_to(source).with_suffix("").parts)
    for source in SOURCES
    for file in source.glob("*/plugin.py")
]


@pytest.mark.parametrize("module", ["core", "sdk", "core.cli", "core.plugins", "core.registry", *PLUGIN_MODULES])
def test_R049_importing_it_loads_nothing_heavy(module: str) -> None:
    assert in_a_fresh_process(f"import {module}; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_a_hook_is_answered_without_anything_heavy() -> None:
    calls = "".join(f"import {module}; {module}.engine_architectures()\n" for module in PLUGIN_MODULES)
    assert in_a_fresh_process(f"{calls}print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_kernels_do_without_triton() -> None:
    pytest.importorskip("torch")
    code = "sys.modules['triton'] = None; import core.kernels; print('fine')"
    assert in_a_fresh_process(code) == "fine"


def test_a_module_that_needs_triton_is_imported_only_behind_a_guard() -> None:
    needy = [
        file
        for file in files_of(ROOT / "core" / "kernels")
        if file.parent.name == "triton"
        or any(
            isinstance(node, ast.Import | ast.ImportFrom) and "triton" in ast.unparse(node)
            for node in tree_of(file).body
        )
    ]
    names = {_module_of(file): file for file in needy}
    found = [
        f"{other.relative_to(ROOT)} imports {names[module].relative_to(ROOT)} at its top"
        for other in CORE
        if other not in needy
        for module in sorted(names.keys() & _imported_at_top(other))
    ]
    assert found == []


def _module_of(file: Path) -> tuple[str, ...]:
    return file.relative_to(ROOT).with_suffix("").parts


def _imported_at_top(file: Path) -> set[tuple[str, ...]]:
    """What the relative imports at a file's top may name: modules, and what is in them."""
    found: set[tuple[str, ...]] = set()
    for node in tree_of(file).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            module = (*_module_of(file)[: -node.level], *(node.module or "").split("."))
            found |= {tuple(filter(None, parts)) for alias in node.names for parts in (module, (*module, alias.name))}
    return found

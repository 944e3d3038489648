"""Which libraries a plugin may import: what its distribution declares, and what that needs in turn."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

import importlib_metadata
from packaging.requirements import Requirement

from .source import Found, Rule, Source

SDK = "engine-plugin-sdk"


def undeclared(distribution: str, package: str) -> Rule:
    """Imports of what neither Python, nor the SDK, nor the plugin's own requirements bring.

    An import that may fail (in a `try` that catches ImportError) and one for types alone are the author's business.

    Args:
        distribution: The plugin's.
        package: Its own top-level name.
    """
    allowed = {package, "sdk", "core", *sys.stdlib_module_names}  # the engine is another law's matter
    # Most libraries bear the name of their distribution; what each of all provides takes longer to find out.
    further = [_required, _provided]

    def rule(source: Source) -> Found:
        guarded = set(_guarded(source.tree))
        asked = [(node, name.partition(".")[0]) for node, name in source.imports if node not in guarded]
        while further and any(root not in allowed for _, root in asked):
            allowed.update(further.pop(0)(distribution))
        for node, root in asked:
            if root not in allowed:
                yield node, f"imports {root}, which {distribution} does not require"

    return rule


def _required(distribution: str) -> set[str]:
    """What a distribution requires, directly or not, and what the SDK does, as names of packages."""
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = [(distribution, frozenset[str]()), (SDK, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        if (_normalised(name), extras) not in known:
            known.add((_normalised(name), extras))
            waiting += _requirements(name, extras)
    return {name for name, _ in known}


def _provided(distribution: str) -> set[str]:
    """Top-level names that these provide."""
    known, by_root = _required(distribution), _distributions(tuple(sys.path))
    return {root for root, names in by_root.items() if not known.isdisjoint(map(_normalised, names))}


@functools.cache
def _distributions(path: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """Top-level name → who provides it; read anew when the path has changed."""
    return importlib_metadata.packages_distributions()


def _requirements(distribution: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution requires here, with these of its extras: names, and the extras asked for."""
    try:
        lines = importlib_metadata.requires(distribution) or []
    except importlib_metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name, frozenset(requirement.extras)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _guarded(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes under a `try` that catches ImportError, and under `if TYPE_CHECKING`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            caught = {name.id for handler in node.handlers for name in ast.walk(handler) if isinstance(name, ast.Name)}
            if not caught & {"ImportError", "ModuleNotFoundError"}:
                continue
        elif not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            continue
        for inner in node.body:
            yield from ast.walk(inner)

"""`engine plugins search|lock|graph|doctor`: the installed plugins as a set. But for doctor, no plugin code runs."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidConfigError
from ..plugins import Catalog, parse_pins
from .output import as_json, table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="Architecture=distribution, where two claim one.")]


def search(
    query: Annotated[str, typer.Argument(help="Part of an architecture, a model type or a plugin's name.")],
    json: Json = False,
) -> int:
    """Find the plugin that runs something: among those installed, and those that this project offers."""
    from ..plugins.search import search

    if not query.strip():
        raise InvalidConfigError("say what to look for; `engine plugins list` has all that is installed", param="QUERY")
    found = search(Catalog.installed(), query)
    if json:
        print(as_json([plugin.as_json() for plugin in found]))
    elif found:
        rows = [(p.distribution, p.installed or "no", ", ".join(p.architectures)) for p in found]
        print(table(("PLUGIN", "INSTALLED", "ARCHITECTURES"), rows))
        print("".join(f"\n{plugin.install}" for plugin in found if plugin.install), end="")
        print()
    else:
        print(
            f"Nothing installed or known has {query!r} in its name. Others may be on the index under engine-plugin-*."
        )
    return 0 if found else 1


def lock(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("engine-plugins.lock"),
    check: Annotated[Path | None, typer.Option("--check", help="Compare what is installed with this lock.")] = None,
    plugin: Plugin = None,
) -> int:
    """Write down the installed plugins, to the byte; or with --check, say what differs from what was written down."""
    from ..plugins.lock import differences, make_lock, read_lock

    found = make_lock(Catalog.installed(), parse_pins(plugin or []))
    if check is None:
        _write(output, json_.dumps(found, indent=2) + "\n")
        print(f"{output}: {len(found['plugins'])} plugins, {len(found['architectures'])} architectures")
        return 0
    try:
        locked = read_lock(check.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidConfigError(f"{check} cannot be read: {getattr(e, 'strerror', e)}", param="--check") from e
    different = list(differences(locked, found))
    print("\n".join(different) if different else f"as locked: {len(found['plugins'])} plugins")
    return 1 if different else 0


def graph(
    dot: Annotated[bool, typer.Option("--dot", help="Print Graphviz's language.")] = False, json: Json = False
) -> None:
    """Show which plugins need which others."""
    from ..plugins.graph import as_dot, as_tree, plugin_graph

    found = plugin_graph(Catalog.installed())
    if json:
        print(as_json({name: [asdict(edge) for edge in edges] for name, edges in found.items()}))
    else:
        print(as_dot(found) if dot else "\n".join(as_tree(found)) or "No plugins are installed.")


def doctor(json: Json = False) -> int:
    """Look for what is wrong with the installed plugins, and say what to do. Each is imported in a process of its own."""
    from ..plugins.diagnosis import diagnose

    found = diagnose(Catalog.installed())
    if json:
        print(as_json([asdict(finding) for finding in found]))
    else:
        for finding in found:
            print(
                f"{finding.plugin}: {finding.what}\n  {finding.cure}"
                if finding.cure
                else f"{finding.plugin}: {finding.what}"
            )
        print(f"{len(found)} findings" if found else "Nothing is wrong with the installed plugins.")
    return 1 if any(finding.serious for finding in found) else 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise InvalidConfigError(f"{path} cannot be written: {e.strerror}", param="--output") from e

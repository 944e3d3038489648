"""`engine plugins list|show|why`: what is installed, what it says, and why it was chosen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..plugins import Catalog, PluginStatus, parse_pins
from ..plugins.missing import known_plugins
from ..plugins.object_claims import scan_objects
from .output import as_json, pairs, table

if TYPE_CHECKING:
    from ..plugins import ResolvedPlugin

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="Architecture=distribution, where two claim one.")]
Architecture = Annotated[str, typer.Argument(help="The name in config.json's `architectures`.")]


def list_(
    check: Annotated[bool, typer.Option("--check", help="Import each plugin in a process of its own.")] = False,
    json: Json = False,
) -> None:
    """List the installed plugins, and the schemes for weights in fewer bits.

    Without --check no plugin code runs; with it, 1 is returned if a plugin is broken.
    """
    catalog = Catalog.installed()
    plugins = catalog.check() if check else catalog.plugins()
    for note in catalog.notes:
        print(f"note: {note}", file=sys.stderr)
    print(as_json([plugin.as_json() for plugin in plugins]) if json else f"{_listing(plugins)}\n\n{_schemes()}")
    if check and any(plugin.state == "quarantined" for plugin in plugins):
        raise typer.Exit(1)


def show(architecture: Architecture, plugin: Plugin = None, json: Json = False) -> None:
    """Show what a plugin says about an architecture. Imports the plugin's torch-free module, nothing heavy."""
    from ..plugins.options import declared_options

    found = Catalog.installed().resolve(architecture, pins=parse_pins(plugin or []))
    facts, options = _facts(found), declared_options(found)
    if json:
        print(as_json({**facts, "plugin_options": [option.as_json() for option in options]}))
        return
    print(pairs([(name, _as_text(value)) for name, value in facts.items() if value]))
    if options:
        rows = [(o.name, o.type, "required" if o.required else repr(o.default), o.description) for o in options]
        print("\n" + table(("OPTION", "TYPE", "DEFAULT", "WHAT FOR"), rows))


def why(architecture: Architecture, plugin: Plugin = None, json: Json = False) -> None:
    """Explain which plugin runs an architecture, and why. No plugin code runs."""
    catalog, pins = Catalog.installed(), parse_pins(plugin or [])
    lines = catalog.why(architecture, pins)
    if not json:
        print("\n".join(lines))
        return
    decision = catalog.decide(architecture, pins=pins)
    considered = [asdict(claim) for claim in decision.considered]
    error = str(decision.error) if decision.error is not None else None
    answer = {"architecture": architecture, "answer": decision.answer, "error": error}
    print(as_json({**answer, "lines": lines, "considered": considered}))


def _listing(plugins: Sequence[PluginStatus]) -> str:
    if not plugins:
        return f"No plugins are installed. This project has: {', '.join(sorted(set(known_plugins().values())))}"
    rows = [
        (plugin.name, plugin.version, plugin.state, ", ".join(plugin.architectures), plugin.origin)
        for plugin in plugins
    ]
    reasons = [f"{plugin.distribution}: {plugin.reason}" for plugin in plugins if plugin.reason]
    listing = table(("NAME", "VERSION", "STATE", "ARCHITECTURES", "ORIGIN"), rows)
    return "\n".join([listing, *([""] if reasons else []), *reasons])


def _schemes() -> str:
    """The quantization schemes, ours and those of plugins; as with these, no code runs."""
    found = sorted(scan_objects("quantization"), key=lambda claim: claim.name)
    rows = [(claim.name, claim.version, claim.state, claim.distribution) for claim in found]
    reasons = [f"{claim.name}: {claim.reason}" for claim in found if claim.reason]
    return "\n".join([table(("SCHEME", "VERSION", "STATE", "BROUGHT BY"), rows), *([""] if reasons else []), *reasons])


def _facts(plugin: ResolvedPlugin) -> dict[str, Any]:
    said = plugin.architecture.model_dump(mode="json")
    if plugin.target("capabilities") is None:
        said["capabilities"] = plugin.architecture.capabilities.model_dump(mode="json")  # type: ignore[union-attr]
    first = {"architecture": said.pop("name"), "distribution": plugin.distribution, "version": plugin.version}
    return {**first, "origin": plugin.origin, "module": plugin.claim.module, **said, "warnings": list(plugin.warnings)}


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_as_text(item)}" for name, item in value.items() if item not in (None, [], {}))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

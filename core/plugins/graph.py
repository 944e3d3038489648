"""The graph of plugins: which distribution needs which, as their metadata say. No plugin code runs."""

from __future__ import annotations

from dataclasses import dataclass

from .catalog import Catalog
from .requirements import is_met, normalised, requirement_name


@dataclass(frozen=True)
class Edge:
    """One plugin needs another.

    Attributes:
        needs: The requirement, e.g. `"engine-plugin-llama>=1.0,<2"`.
        plugin: The normalised name of the other.
        met: Whether a fitting version is installed.
    """

    needs: str
    plugin: str
    met: bool


def plugin_graph(catalog: Catalog) -> dict[str, list[Edge]]:
    """Each plugin's normalised name → the plugins that it needs; requirements on anything else are left out."""
    requires = {claim.key: claim.requires for claim in catalog.claims()}
    graph: dict[str, list[Edge]] = {}
    for key, own in sorted(requires.items()):
        edges = []
        for requirement in own:
            name = normalised(requirement_name(requirement))
            if name in requires or (name.startswith("engine-plugin-") and name != "engine-plugin-sdk"):
                edges.append(Edge(requirement, name, is_met(requirement)))
        graph[key] = sorted(edges, key=lambda edge: edge.plugin)
    return graph


def as_tree(graph: dict[str, list[Edge]]) -> list[str]:
    """The graph as lines: what nobody needs stands at the left, what it needs below it."""
    needed = {edge.plugin for edges in graph.values() for edge in edges}
    lines: list[str] = []

    def add(name: str, prefix: str, above: tuple[str, ...]) -> None:
        edges = graph.get(name, [])
        for i, edge in enumerate(edges):
            last = i == len(edges) - 1
            mark = "" if edge.met else f"  ({edge.needs} is not installed)"
            mark = "  (needs itself)" if edge.plugin in above else mark
            lines.append(f"{prefix}{'└─ ' if last else '├─ '}{edge.plugin}{mark}")
            if edge.plugin not in above:
                add(edge.plugin, prefix + ("   " if last else "│  "), (*above, edge.plugin))

    for name in [n for n in graph if n not in needed] or list(graph):
        lines.append(name)
        add(name, "", (name,))
    return lines


def as_dot(graph: dict[str, list[Edge]]) -> str:
    """The graph in Graphviz's language."""
    nodes = [f'  "{name}";' for name in graph]
    edges = [
        f'  "{name}" -> "{edge.plugin}"{"" if edge.met else " [style=dashed]"};'
        for name, own in graph.items()
        for edge in own
    ]
    return "\n".join(["digraph plugins {", *nodes, *edges, "}"])

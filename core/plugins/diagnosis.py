"""What is wrong with the installed plugins, and what to do about it: `engine plugins doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .catalog import Catalog
from .graph import plugin_graph
from .requirements import pip_line, unmet


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        plugin: With whom.
        what: What it is.
        cure: What to do.
        serious: Whether something does not work because of it.
    """

    plugin: str
    what: str
    cure: str = ""
    serious: bool = True


def diagnose(catalog: Catalog) -> list[Finding]:
    """Everything that is found, the serious first. Every plugin is imported in a child process."""
    found = [*_states(catalog), *_requirements(catalog), *_conflicts(catalog), *_unserved(catalog)]
    found += [Finding("installation", note, serious=False) for note in catalog.notes]
    return sorted(found, key=lambda finding: (not finding.serious, finding.plugin))


def _states(catalog: Catalog) -> Iterator[Finding]:
    for status in catalog.check():
        if status.state in ("quarantined", "incompatible"):
            cure = "" if "pip install" in status.reason else pip_line("--upgrade", status.distribution)
            yield Finding(status.distribution, f"{status.state}: {status.reason}", cure)
        elif status.state == "disabled":
            yield Finding(status.distribution, status.reason, serious=False)


def _requirements(catalog: Catalog) -> Iterator[Finding]:
    for key, requires in {claim.key: claim.requires for claim in catalog.claims()}.items():
        missing = unmet(requires)
        if missing:
            yield Finding(key, f"needs {', '.join(missing)}, and that is not what is installed", pip_line(*missing))


def _conflicts(catalog: Catalog) -> Iterator[Finding]:
    """Architectures that two claim: an error only when asked for, and worth knowing before."""
    names = {c.name for c in catalog.claims() if c.kind == "architecture" and c.state == "ready" and not c.is_fallback}
    for name in sorted(names):
        owners = sorted({c.distribution for c in catalog.claims() if c.name == name and c.state == "ready"})
        if len(owners) > 1:
            yield Finding(
                " and ".join(owners),
                f"both run {name}, so that nobody does until you choose",
                f"--plugin {name}={owners[0]}, or uninstall one",
            )


def _unserved(catalog: Catalog) -> Iterator[Finding]:
    """Plugins that others need and that are here, but left out or broken."""
    states = {status.distribution.lower(): status for status in catalog.plugins()}
    for key, edges in plugin_graph(catalog).items():
        for edge in edges:
            needed = states.get(edge.plugin)
            if needed is not None and needed.state == "disabled":
                yield Finding(key, f"needs {edge.plugin}, which ENGINE_PLUGINS leaves out", "add it to ENGINE_PLUGINS")

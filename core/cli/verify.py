"""`engine plugins verify`: the conformance kit on the command line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..plugins import PluginWarning, parse_pins
from .output import as_json

if TYPE_CHECKING:
    from rich.console import Console

    from sdk.testing.law import LawResult
    from sdk.testing.suite import Report

_MARKS = {"passed": "[green]passed[/]", "failed": "[bold red]failed[/]", "skipped": "[yellow]skipped[/]"}


def verify(
    plugin: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="Architecture, scheme, distribution, or a plugin's folder.")
    ],
    level: Annotated[
        int | None, typer.Option("--level", min=0, max=6, help="Highest level; default: all there are.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option("--plugin", help="Architecture=distribution, where two claim one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove a plugin: its source, weights and processor, its worst case, and that it computes what transformers computes,
    whatever shares the engine with it.

    Exit code 0 when no law is broken, 1 when one is. Everything runs offline, on a tiny random checkpoint.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sdk.testing.levels import LEVELS
    from sdk.testing.schemes import verify_scheme
    from sdk.testing.suite import verify as check

    from ..runtime import CoreRuntime

    highest = max(LEVELS) if level is None else level
    runtime = CoreRuntime(parse_pins(pin or []))
    reports = []
    with _found(plugin) as name, _quiet():
        told = _tell if not json and sys.stderr.isatty() else id
        for architecture in runtime.architectures(name):
            reports.append(check(architecture, highest, runtime=runtime, told=told))
            if not json:
                _show(reports[-1])
        for scheme in runtime.schemes(name):
            reports.append(verify_scheme(scheme, runtime=runtime, told=told))
            if not json:
                _show(reports[-1])
    if json:
        print(as_json([_as_dict(report) for report in reports]))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@contextlib.contextmanager
def _found(plugin: str) -> Iterator[str]:
    """The name to ask for; for a source folder, for as long as it is on the path."""
    if not (Path(plugin) / "pyproject.toml").is_file() and not plugin.startswith((".", "/", "~")):
        yield plugin
        return
    from sdk.testing.source_folder import on_path

    with on_path(Path(plugin).expanduser()) as distribution:
        yield distribution


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither progress bars of the libraries nor notes about the copy of a plugin that the source folder hides."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # advice to who calls HF's processors by hand
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        yield


def _tell(result: LawResult) -> None:
    """A line on a terminal's standard error that the table replaces."""
    print(f"\r\x1b[K{result.law}", end="", file=sys.stderr, flush=True)


def _show(report: Report) -> None:
    from rich.table import Table

    from sdk.testing.levels import TITLES

    console = _console()
    table = Table(title=f"{report.architecture} by {report.plugin}", title_justify="left", box=None, pad_edge=False)
    for heading in ("LAW", "RESULT", "SECONDS", "DETAIL"):
        table.add_column(heading, justify="right" if heading == "SECONDS" else "left", no_wrap=heading != "DETAIL")
    for result in report.results:
        detail = result.detail if result.status != "failed" else "see below"
        table.add_row(result.law, _MARKS[result.status], f"{result.seconds:.2f}", _plain(detail))
    console.print(table)
    for number in report.absent:
        console.print(f"Level {number} ({TITLES[number]}) does not exist in this version: nothing was checked there.")
    for result in report.results:
        if result.status == "failed":
            console.print(f"\n{_plain(result.explain())}", highlight=False)
    counts = {status: sum(r.status == status for r in report.results) for status in _MARKS}
    console.print(f"\n{', '.join(f'{n} {status}' for status, n in counts.items())}\n", highlight=False)


def _console() -> Console:
    """Standard output, in a pipe as wide as the lines need."""
    from rich.console import Console

    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return Console(file=sys.stdout, soft_wrap=False) if sys.stdout.isatty() else Console(file=sys.stdout, width=160)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _as_dict(report: Report) -> dict[str, Any]:
    from dataclasses import asdict

    results = [asdict(result) | {"seconds": round(result.seconds, 3)} for result in report.results]
    said = {"architecture": report.architecture, "plugin": report.plugin, "passed": report.passed}
    return {**said, "absent_levels": list(report.absent), "results": results}

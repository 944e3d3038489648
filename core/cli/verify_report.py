"""What `engine plugins verify` found, for people and for programs."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from sdk.testing.law import LawResult
    from sdk.testing.suite import Report

_MARKS = {"passed": "[green]passed[/]", "failed": "[bold red]failed[/]"}


def tell(result: LawResult) -> None:
    """A line on a terminal's standard error that the table replaces."""
    print(f"\r\x1b[K{result.law}", end="", file=sys.stderr, flush=True)


def show(report: Report) -> None:
    """A table of the laws that were checked, why others were not, and each broken one with all that is known of it."""
    from rich.table import Table

    console = _console()
    console.print(f"{report.architecture} by {report.plugin}\n", style="bold", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("LAW", "RESULT", "SECONDS", "DETAIL"):
        table.add_column(heading, justify="right" if heading == "SECONDS" else "left", no_wrap=heading != "DETAIL")
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    for result in report.results:
        if result.status == "skipped":
            skipped[result.detail].append(result.law)
            continue
        detail = "see below" if result.status == "failed" else _plain(result.detail)
        table.add_row(result.law, _MARKS[result.status], f"{result.seconds:.2f}", detail)
    console.print(table)
    for reason, laws in skipped.items():
        console.print(f"\nskipped ({_plain(reason)}):\n  {', '.join(laws)}", highlight=False)
    failed: defaultdict[str, list[LawResult]] = defaultdict(list)
    for result in report.results:
        if result.status == "failed":
            failed[result.detail].append(result)
    for first, *others in failed.values():
        _explain(console, first, [other.law for other in others])
    console.print(f"\n{_summary(report)}\n", highlight=False)


def _explain(console: Console, result: LawResult, others: list[str]) -> None:
    """All that is known of a broken law, last on the screen, where people look first; and which others say the same."""
    from rich.table import Table

    console.print(f"\n[bold red]{result.law} failed[/]: {_plain(result.detail)}", highlight=False)
    said = {"law": result.statement, "smallest": result.smallest, "cause": result.cause, "read": result.docs}
    said["also"] = ", ".join(others)
    grid = Table.grid(padding=(0, 1, 0, 0))
    for name, text in said.items():
        if text:
            grid.add_row(f"  {name}:".ljust(11), _plain(text))
    console.print(grid, highlight=False)


def _summary(report: Report) -> str:
    counts = [f"{sum(r.status == s for r in report.results)} {s}" for s in ("passed", "failed", "skipped")]
    return f"{', '.join(counts)} in {sum(result.seconds for result in report.results):.1f} s"


def as_dict(report: Report) -> dict[str, Any]:
    """All of it, for JSON."""
    results = [asdict(result) | {"seconds": round(result.seconds, 3)} for result in report.results]
    said = {"architecture": report.architecture, "plugin": report.plugin, "passed": report.passed}
    return {**said, "results": results}


def _console() -> Console:
    """Standard output, in a pipe as wide as the lines need."""
    from rich.console import Console

    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return Console(file=sys.stdout, soft_wrap=False) if sys.stdout.isatty() else Console(file=sys.stdout, width=160)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)

"""Plain output: aligned tables, JSON, and lines about the program itself; and what a person at a terminal types into."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

_CONTROLS = dict.fromkeys(
    (c for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"), "\N{REPLACEMENT CHARACTER}"
)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headers, in columns as wide as they need; the last column is not padded."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers) - 1)]
    padded = ([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def pairs(values: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Names and values, aligned."""
    width = max((len(name) for name, _ in values), default=0)
    return "\n".join(f"{indent}{name.ljust(width)}  {value}".rstrip() for name, value in values)


def shown(text: str) -> str:
    """A model's text for standard output: a terminal, whose cursor control characters could move, or worse, gets none."""
    return text.translate(_CONTROLS) if sys.stdout.isatty() else text


def note(text: str) -> None:
    """A line about the program itself: on standard error, never among the answers."""
    print(text, file=sys.stderr, flush=True)


def edit_lines() -> None:
    """Give `input` arrow keys and a history, where this Python has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # `input` uses it once it is there


def as_json(value: Any) -> str:
    """JSON in ASCII, which any terminal and any pipe carries."""
    return json.dumps(value, indent=2, ensure_ascii=True)

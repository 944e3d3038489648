"""The options of the commands that ask a running server: where it is, what opens it, and which of its models answers."""

from __future__ import annotations

from typing import Annotated

import typer


def _first_line(key: str | None) -> str | None:
    """The first of the keys that ENGINE_API_KEY may hold for `engine serve`, a line each."""
    return key.partition("\n")[0] if key else key


Url = Annotated[str, typer.Option("--url", help="Of the server.", envvar="ENGINE_URL")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="What opens it.", envvar="ENGINE_API_KEY", callback=_first_line, show_default=False),
]
ServedName = Annotated[str | None, typer.Option("--model", "-m", help="Which; left out, the server's first.")]

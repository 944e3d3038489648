"""`engine plugins new`: a plugin that works, to be changed into yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..scaffold import kinds, scaffold

_KINDS = ", ".join(f"{name} ({start.about})" for name, start in kinds().items())


def new(
    name: Annotated[str, typer.Argument(help="As in engine-plugin-NAME: lower-case words joined by dashes.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help=_KINDS)] = "llm",
    upstream: Annotated[
        str | None, typer.Option("--from", help="An architecture of transformers that the plugin shall run.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; engine-plugin-NAME by itself.")] = None,
) -> None:
    """Make a plugin: a small model that passes `engine plugins verify` and its own tests, untouched."""
    folder = output or Path(f"engine-plugin-{name}")
    made = scaffold(name, kind, folder, upstream=upstream)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(path)
    print(f"""
Next:
  cd {folder}
  pip install -e ".[dev]"
  engine plugins verify {made.proved}
  pytest
Then make src/{made.package}/{made.begins_with} yours.""")
    if upstream is not None:
        print(
            f"It describes a model like {kinds()[kind].hf_class}; {upstream} is in transformers.models.{made.model_type}: "
            "verify says what differs."
        )

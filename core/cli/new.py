"""`engine plugins new`: a plugin that works, to be changed into yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="As in engine-plugin-NAME: lower-case words joined by dashes.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="llm (text) or vlm (pictures and text).")] = "llm",
    upstream: Annotated[
        str | None, typer.Option("--from", help="An architecture of transformers that the plugin shall run.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; engine-plugin-NAME by itself.")] = None,
) -> None:
    """Make a plugin: a small model that passes `engine plugins verify` and its own tests, untouched."""
    from ..scaffold import scaffold

    folder = output or Path(f"engine-plugin-{name}")
    made = scaffold(name, kind, folder, upstream=upstream)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(path)
    print(f"""
Next:
  cd {folder}
  pip install -e ".[dev]"
  engine plugins verify {made.class_name}
  pytest
Then make src/{made.package}/model.py yours.""")
    if upstream is not None:
        print(
            f"It describes a Llama-like model; {upstream} is in transformers.models.{made.model_type}: verify says what differs."
        )

"""`engine plugins migrate`: a model file of vLLM or Aphrodite becomes one of a plugin."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidConfigError


def migrate(
    file: Annotated[Path, typer.Argument(help="A model file written for vLLM or Aphrodite.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file for the result; without, it is printed.")
    ] = None,
    package: Annotated[str, typer.Option("--package", help="The plugin's Python package.")] = "engine_plugin_ported",
) -> None:
    """Rewrite imports, hooks and registration to the SDK, and list what a person must still do."""
    try:
        from ..migrate import migrate
    except ImportError as e:
        raise InvalidConfigError(
            f"files are rewritten by libcst, which is not installed ({e}); try: pip install 'engine-plugin-sdk[author]'"
        ) from None
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in package.split(".")):
        raise InvalidConfigError(
            f"{package!r} is no name of a Python package, such as engine_plugin_ported", param="--package"
        )
    try:
        source = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidConfigError(f"{file} cannot be read: {e}", param="FILE") from None
    made = migrate(source)
    if output is None:
        print(made.code, end="")
    else:
        try:
            output.write_text(made.code, encoding="utf-8")
        except OSError as e:
            raise InvalidConfigError(f"{output} cannot be written: {e.strerror}", param="--output") from None
    say = [f"{file}:{note.line}: {note.text}" for note in made.notes]
    say += [f"\n# plugin.py, beside it as model.py\n{made.plugin_module(package)}", made.entry_points(package)]
    print("\n".join(["To do:", *say] if made.notes else say), file=sys.stderr)

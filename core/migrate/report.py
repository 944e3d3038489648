"""What a migration did and what it left, with the plugin files that belong to the model file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .notes import Note
from .rewrite import MODELS, rewrite


@dataclass(frozen=True)
class Migration:
    """A rewritten model file.

    Attributes:
        code: Its text.
        notes: What a person has to look at, by the line of the file that was given.
        architectures: The model classes, by the architecture that each shall run.
    """

    code: str
    notes: tuple[Note, ...]
    architectures: dict[str, str]

    def plugin_module(self, package: str) -> str:
        """The torch-free module that names the model, for a file `model.py` in a package."""
        records = "".join(
            f'        Architecture(name="{architecture}", model="sdk.compat.ported:{package}.model.{name}"),\n'
            for architecture, name in self.architectures.items()
        )
        return (
            '"""What the engine reads first. Loads no torch."""\n\n'
            "from sdk import Architecture, hookimpl\n\n\n"
            "@hookimpl\ndef engine_architectures() -> list[Architecture]:\n"
            f'    """The architectures of this plugin."""\n    return [\n{records}    ]\n'
        )

    def entry_points(self, package: str) -> str:
        """What goes into pyproject.toml."""
        lines = "".join(f'{architecture} = "{package}.plugin"\n' for architecture in self.architectures)
        return f'[project.entry-points."engine.v1"]\n{lines}'


def migrate(source: str) -> Migration:
    """Rewrite a model file that was written for vLLM or Aphrodite.

    Args:
        source: Its text.

    Raises:
        InvalidConfigError: It is no Python, or nested too deeply.
    """
    code, rewriter = rewrite(source)
    registered = {architecture: _class(value) for architecture, value in rewriter.registered.items()}
    architectures = registered or {name: name for name in rewriter.models}
    notes = list(rewriter.notes)
    if not architectures:
        notes.append(Note(1, f"no class looks like a model (…{', …'.join(MODELS)}): name it in plugin.py"))
    for name in ("quant_config", "cache_config"):
        if re.search(rf"{name}\.\w+\(", code):
            notes.append(Note(1, f"{name} is None here, and the code calls methods of it: such branches never run"))
    return Migration(code, tuple(sorted(notes, key=lambda note: note.line)), architectures)


def _class(value: str) -> str:
    """The class of `"package.module:Class"` or of a plain name."""
    return value.strip("\"'").rpartition(":")[2].rpartition(".")[2]

"""Faulty plugins: each is a sound one of `tests/faulty_plugins` and a patch of a few lines, which is the fault.

A patch begins as a letter does: what the author did, then the law that must catch it and parts of what it must say.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "faulty_plugins"
SOUND = ("sound_text", "sound_vision", "sound_state")
EXPECTED = ("law", "says", "smallest", "cause")


@dataclass(frozen=True)
class Hunk:
    """One change: lines of a file, and the lines in their place."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Fault:
    """One faulty plugin.

    Attributes:
        name: Of the patch, and of the faulty package.
        what: The fault, in a sentence.
        law: The id of the law that must catch it.
        says, smallest, cause: Parts of what the law must say.
        hunks: What is changed.
    """

    name: str
    what: str
    law: str
    says: str
    smallest: str
    cause: str
    hunks: tuple[Hunk, ...]

    @property
    def base(self) -> str:
        """The sound plugin that it is made of."""
        return self.hunks[0].file.partition("/")[0]

    def changes(self, file: str) -> bool:
        """Whether a file of this name is changed."""
        return any(hunk.file.endswith(file) for hunk in self.hunks)

    def write(self, folder: Path) -> Path:
        """Write the plugin's folder; the package bears the fault's name, as packages stay imported."""
        for path in sorted((FOLDER / self.base).rglob("*")):
            if path.suffix not in (".py", ".toml"):
                continue
            name = str(path.relative_to(FOLDER))
            text = path.read_text(encoding="utf-8")
            for hunk in self.hunks:
                if hunk.file == name:
                    assert text.count(hunk.before) == 1, f"{self.name}: {text.count(hunk.before)} of\n{hunk.before}"
                    text = text.replace(hunk.before, hunk.after)
            target = folder / path.relative_to(FOLDER / self.base).as_posix().replace(self.base, self.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace(self.base, self.name), encoding="utf-8")
        return folder


def read_fault(path: Path) -> Fault:
    """One patch."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n--- ")
    what, _, fields = head.partition("\n")
    said = dict(re.findall(r"^(\w+): (.*)$", fields, re.MULTILINE))
    assert tuple(said) == EXPECTED, f"{path.name} must say {', '.join(EXPECTED)}, in this order"
    hunks = [hunk for part in body.split("\n--- ") for hunk in _hunks(part)]
    return Fault(path.stem, what, **said, hunks=tuple(hunks))


def _hunks(part: str) -> list[Hunk]:
    """The changes of one file: a line with its name, then hunks, each under a line `@@`."""
    file, _, text = part.partition("\n@@\n")
    found = []
    for hunk in text.rstrip("\n").split("\n@@\n"):
        lines = [line or " " for line in hunk.split("\n")]
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
        found.append(Hunk(file.strip(), before, after))
    return found


def all_faults() -> list[Fault]:
    """Every patch."""
    return [read_fault(path) for path in sorted((FOLDER / "faults").glob("*.patch"))]


if __name__ == "__main__":
    name, target = sys.argv[1:]
    print(read_fault(FOLDER / "faults" / f"{name}.patch").write(Path(target)))

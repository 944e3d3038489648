"""A law of the conformance kit, what its check may answer, and the result as it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .subject import Subject

Status = Literal["passed", "failed", "skipped"]
_INSTALLED = Path(__file__).parents[1] / "_docs" / "verify.md"
PAGE = str(_INSTALLED) if _INSTALLED.is_file() else "docs/verify.md"
"""The page that explains the laws: a wheel brings the pages along."""


class Broken(Exception):
    """A law does not hold.

    Args:
        what: What is wrong, in a sentence.
        smallest: The smallest input found that shows it.
        cause: Where to look first.
    """

    def __init__(self, what: str, *, smallest: str = "", cause: str = "") -> None:
        super().__init__(what)
        self.what, self.smallest, self.cause = what, smallest, cause


class NotApplicable(Exception):
    """A law has nothing to say about this architecture; the message is the reason."""


@dataclass(frozen=True)
class Law:
    """One law.

    Attributes:
        id: E.g. `"L2.items-independent"`; the digit is the level.
        statement: The law itself, a line.
        check: Returns what was looked at, a few words; raises `Broken` or `NotApplicable`. Whatever else it raises
            breaks the law too.
        needs: Ids of laws without which this one cannot be checked.
    """

    id: str
    statement: str
    check: Callable[[Subject], str]
    needs: tuple[str, ...] = ()

    @property
    def level(self) -> int:
        """The level it belongs to."""
        return int(self.id[1])

    @property
    def docs(self) -> str:
        """Where the law is explained."""
        return f"{PAGE}#{self.id.lower().replace('.', '')}"


def law(id_: str, statement: str, *, needs: tuple[str, ...] = ()) -> Callable[[Callable[[Subject], str]], Law]:
    """Make the decorated check a `Law`."""
    return lambda check: Law(id_, statement, check, needs)


@dataclass(frozen=True)
class LawResult:
    """What checking a law gave.

    Attributes:
        law: Its name.
        level: Its level.
        statement: What it says.
        status: `passed`, `failed` or `skipped`.
        detail: Passed: what was looked at. Failed: what is wrong. Skipped: why.
        smallest: Failed: the smallest input found that shows it.
        cause: Failed: where to look first.
        docs: Where the law is explained.
        seconds: How long it took.
    """

    law: str
    level: int
    statement: str
    status: Status
    detail: str
    smallest: str = ""
    cause: str = ""
    docs: str = ""
    seconds: float = 0.0

    def explain(self) -> str:
        """Everything there is to say, over several lines."""
        lines = [f"{self.law} {self.status}: {self.detail}", f"  law:      {self.statement}"]
        lines += [f"  smallest: {self.smallest}"] if self.smallest else []
        lines += [f"  cause:    {self.cause}"] if self.cause else []
        return "\n".join([*lines, f"  read:     {self.docs}"])

"""What a person is told of a rewritten file, by the line of the file that was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something that a person has to look at.

    Attributes:
        line: Of the file that was given.
        text: What, and what to do.
    """

    line: int
    text: str

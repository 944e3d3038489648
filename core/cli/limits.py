"""The `--limit` option of the commands that load a model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import InvalidRequestError

LIMIT_HELP = "MODALITY=N: most items in a prompt; image=0: no pictures. May be repeated; others keep their default."


def parse_limits(given: Sequence[str]) -> dict[str, int]:
    """`["image=2,audio=1"]`, `["image=2", "audio=1"]` or `['{"image": 2, "audio": 1}']` → `{"image": 2, "audio": 1}`.

    Raises:
        InvalidRequestError: One is none of these.
    """
    return {modality: count for text in given for modality, count in _parse(text).items()}


def _parse(text: str) -> dict[str, int]:
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as e:
            raise _refused(text) from e
        if not all(type(count) is int and count >= 0 for count in found.values()):
            raise _refused(text)
        return dict(found)
    limits = {}
    for pair in text.split(","):
        modality, _, count = (part.strip() for part in pair.partition("="))
        if not modality or not (count.isascii() and count.isdecimal()):
            raise _refused(text)
        limits[modality] = int(count)
    return limits


def _refused(text: str) -> InvalidRequestError:
    return InvalidRequestError(f"--limit is MODALITY=N, such as image=2, not {text!r:.60}", param="--limit")

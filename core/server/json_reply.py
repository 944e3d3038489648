"""What clients are sent, as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def as_json(value: Any) -> bytes:
    """A value as JSON. msgspec takes a tenth of the time of `json`, in which no other thread runs."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a character: a model may spell one, in the arguments of a call
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


__all__ = ["as_json"]

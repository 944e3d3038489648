"""One value that a caller gave, checked; the error names the parameter."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real

from ..errors import InvalidRequestError, shown

INT64 = 2**63


def bad(name: str, what: str, value: object) -> InvalidRequestError:
    """The error for a value: what the parameter takes, and what came."""
    return InvalidRequestError(f"{name} {what}, not {shown(value)}", param=f"sampling_params.{name}")


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number, numpy's included, as an int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise bad(name, "must be a whole number", value)
    number = int(value)
    if not low <= number <= high:
        raise bad(name, f"must be between {low} and {high}" if high < INT64 - 1 else f"must be at least {low}", value)
    return number


def number(name: str, value: object, low: float, high: float) -> float:
    """A number as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise bad(name, "must be a number", value)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not low <= found <= high:
        raise bad(name, f"must be between {low:g} and {high:g}", value)
    return found


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise bad(name, "must be True or False", value)
    return value


def listed(name: str, value: object, most: int, what: str) -> tuple[object, ...]:
    """A collection of at most `most` entries as a tuple; a string is one entry. Its length is looked at first."""
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    if not isinstance(value, Collection) or isinstance(value, (Mapping, bytes)):
        raise bad(name, f"takes a list of {what}", value)
    if len(value) > most:
        raise bad(name, f"takes at most {most} {what}", len(value))
    return tuple(value)


def strings(name: str, value: object, most: int, most_chars: int) -> tuple[str, ...]:
    """Non-empty strings of bounded number and length."""
    found = []
    for s in listed(name, value, most, "strings"):
        if not isinstance(s, str) or not 0 < len(s) <= most_chars:
            raise bad(name, f"takes non-empty strings of at most {most_chars} characters", s)
        found.append(s)
    return tuple(found)


def token_ids(name: str, value: object, most: int) -> tuple[int, ...]:
    """Token ids; whether the model has them is for those to say who know the model."""
    return tuple(whole(name, t, 0, INT64 - 1) for t in listed(name, value, most, "ids"))


def bias(name: str, value: object, most: int, limit: float) -> dict[int, float] | None:
    """Token id → number. Ids may be written as strings, as JSON has no other keys."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise bad(name, "maps token ids to numbers", value)
    if len(value) > most:
        raise bad(name, f"takes at most {most} ids", len(value))
    found = {}
    for token, amount in value.items():
        if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 19:
            token = int(token)
        found[whole(name, token, 0, INT64 - 1)] = number(name, amount, -limit, limit)
    return found

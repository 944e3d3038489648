"""What a caller may ask of sampling, validated before anything is scheduled."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from .errors import InvalidRequestError, shown

MAX_N = 16
MAX_STOPS, MAX_STOP_CHARS = 4, 256
MAX_STOP_TOKEN_IDS = 128
MAX_LOGPROBS = 20
_INT64 = 2**63
_WHOLE = (
    ("n", 1, MAX_N),
    ("max_tokens", 1, _INT64),
    ("top_k", -1, _INT64),
    ("seed", -_INT64, _INT64 - 1),
    ("logprobs", 0, MAX_LOGPROBS),
)
"""Fields that are whole numbers, and between which."""


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen.

    Attributes:
        n: Completions to draw for the prompt.
        max_tokens: Most tokens to generate; None: what the context has left.
        temperature: Divides the logits; 0 means greedy.
        top_p: Draw from the smallest set of tokens whose probability reaches this.
        top_k: Draw from this many likeliest tokens; 0 or -1: all.
        seed: Repeats the draw, whatever shares the batch.
        stop: End before any of these strings.
        stop_token_ids: End at any of these tokens, besides the model's own end tokens.
        ignore_eos: Go on past the model's end tokens.
        logprobs: Log-probabilities of this many likeliest tokens, and of the chosen one, at each step.
        include_stop_str_in_output: Keep the stop string in the text.
        skip_special_tokens: Leave special tokens out of the text.
    """

    n: int = 1
    max_tokens: int | None = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        for name, low, high in _WHOLE:
            value = getattr(self, name)
            if value is not None or name in ("n", "top_k"):
                self._set(name, _int(name, value, low, high))
        self._set("temperature", _number("temperature", self.temperature, 0.0, 1e9))
        self._set("top_p", _number("top_p", self.top_p, 0.0, 1.0))
        if self.top_p == 0.0:
            raise _bad("top_p", "must be above 0 (for greedy decoding use temperature=0)", self.top_p)
        stop = _tuple("stop", self.stop, MAX_STOPS, "strings")
        for s in stop:
            if not isinstance(s, str) or not 0 < len(s) <= MAX_STOP_CHARS:
                raise _bad("stop", f"takes non-empty strings of at most {MAX_STOP_CHARS} characters", s)
        self._set("stop", stop)
        ids = _tuple("stop_token_ids", self.stop_token_ids, MAX_STOP_TOKEN_IDS, "ids")
        self._set("stop_token_ids", tuple(_int("stop_token_ids", t, 0, _INT64) for t in ids))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SamplingParams:
        """Make one from keyword arguments; an unknown name is an error that says the nearest known one."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise InvalidRequestError(f"unknown sampling parameter {name!r}{hint}", param=name)
        return cls(**values)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0 or self.top_k == 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return self.stop  # type: ignore[return-value]


def _bad(name: str, what: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(f"{name} {what}, not {shown(value)}", param=f"sampling_params.{name}")


def _int(name: str, value: object, low: int, high: int) -> int:
    """A whole number, numpy's included, as an int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _bad(name, "must be a whole number", value)
    number = int(value)
    if not low <= number <= high:
        raise _bad(name, f"must be between {low} and {high}" if high < _INT64 - 1 else f"must be at least {low}", value)
    return number


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _bad(name, "must be a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:
        raise _bad(name, f"must be between {low:g} and {high:g}", value)
    return number


def _tuple(name: str, value: object, most: int, what: str) -> tuple[object, ...]:
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    if not isinstance(value, Collection):
        raise _bad(name, f"takes a list of {what}", value)
    if len(value) > most:
        raise _bad(name, f"takes at most {most} {what}", len(value))
    return tuple(value)

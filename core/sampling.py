"""What a caller may ask of sampling, validated before anything is scheduled."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .errors import InvalidRequestError

MAX_N = 16
MAX_STOPS, MAX_STOP_CHARS = 4, 256
MAX_STOP_TOKEN_IDS = 128
MAX_LOGPROBS = 20
_INT64 = 2**63


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
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids or ()))
        _int("n", self.n, 1, MAX_N)
        if self.max_tokens is not None:
            _int("max_tokens", self.max_tokens, 1, _INT64)
        _number("temperature", self.temperature, 0.0, 1e9)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise _bad("top_p", "must be above 0 (for greedy decoding use temperature=0)", self.top_p)
        _int("top_k", self.top_k, -1, _INT64)
        if self.seed is not None:
            _int("seed", self.seed, -_INT64, _INT64 - 1)
        if self.logprobs is not None:
            _int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if len(stop) > MAX_STOPS:
            raise _bad("stop", f"takes at most {MAX_STOPS} strings", len(stop))
        for s in stop:
            if not isinstance(s, str) or not 0 < len(s) <= MAX_STOP_CHARS:
                raise _bad("stop", f"takes non-empty strings of at most {MAX_STOP_CHARS} characters", s)
        if len(self.stop_token_ids) > MAX_STOP_TOKEN_IDS:
            raise _bad("stop_token_ids", f"takes at most {MAX_STOP_TOKEN_IDS} ids", len(self.stop_token_ids))
        for t in self.stop_token_ids:
            _int("stop_token_ids", t, 0, _INT64)

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
    return InvalidRequestError(f"{name} {what}, not {value!r:.80}", param=f"sampling_params.{name}")


def _int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, "must be a whole number", value)
    if not low <= value <= high:
        raise _bad(name, f"must be between {low} and {high}" if high < _INT64 - 1 else f"must be at least {low}", value)


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _bad(name, "must be a finite number", value)
    if not low <= value <= high:
        raise _bad(name, f"must be between {low:g} and {high:g}", value)

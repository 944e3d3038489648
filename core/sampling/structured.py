"""`StructuredOutputs`: a JSON schema, a regular expression, some choices or a grammar that a text is held to.

Only size and depth are looked at here; whether a grammar means anything is for the compiler to say (`core.grammar`).
"""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ..errors import GrammarError, shown

MAX_BYTES = 64 * 1024
MAX_DEPTH = 64
MAX_CHOICES = 1024


class GrammarSource(NamedTuple):
    """What is to be compiled.

    Attributes:
        kind: `json`, `regex` or `grammar`.
        text: The schema as JSON, the expression, or the grammar.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class StructuredOutputs:
    """What a text is held to: exactly one of these.

    Attributes:
        json: A JSON schema, as a mapping or as text, or a pydantic model class. `{}` allows any JSON value.
        regex: A regular expression that the whole text matches, in the syntax of Rust's `regex`: no look-around, no
            back-references.
        choice: Strings, one of which is the whole text.
        grammar: A context-free grammar in llguidance's Lark syntax, with a rule `start`.
    """

    json: Any = field(default=None, hash=False)
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    source: GrammarSource = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if f.init and getattr(self, f.name) is not None]
        if len(given) != 1:
            raise _bad("", f"takes one of json, regex, choice and grammar, not {' and '.join(given) or 'none'}")
        name = given[0]
        if name == "choice":
            object.__setattr__(self, "choice", tuple(_choices(self.choice)))
        made = {"json": _schema, "choice": _one_of, "regex": _expression, "grammar": _grammar}[name]
        object.__setattr__(self, "source", made(getattr(self, name)))

    @classmethod
    def from_mapping(cls, values: object) -> StructuredOutputs:
        """Make one from a mapping, as JSON brings it."""
        known = [f.name for f in fields(cls) if f.init]
        if not isinstance(values, Mapping) or any(name not in known for name in values):
            raise _bad(
                "", f"takes a StructuredOutputs or a mapping with one of {', '.join(known)}, not {shown(values)}"
            )
        return cls(**values)


def _bad(name: str, what: str) -> GrammarError:
    where = f"structured_outputs.{name}" if name else "structured_outputs"
    return GrammarError(f"{where} {what}", param=f"sampling_params.{where}")


def _sized(name: str, text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _bad(name, "holds half a character") from None
    if size > MAX_BYTES:
        raise _bad(name, f"has {size} bytes; the limit is {MAX_BYTES}")
    return text


def _schema(value: Any) -> GrammarSource:
    if callable(getattr(value, "model_json_schema", None)):
        value = value.model_json_schema()
    if isinstance(value, str):
        _sized("json", value)
        try:
            value = json_module.loads(value)
        except (ValueError, RecursionError) as e:
            raise _bad("json", f"is not JSON: {e!s:.200}") from None
    if not isinstance(value, Mapping):
        raise _bad("json", f"takes a schema that is a mapping, not {shown(value)}")
    _check_depth(value)
    try:
        text = json_module.dumps(value)
    except (TypeError, ValueError) as e:
        raise _bad("json", f"cannot be written as JSON: {e!s:.200}") from None
    return GrammarSource("json", _sized("json", text))


def _check_depth(schema: Any) -> None:
    """Refuse what is deep, endless or far over the size limit before anything recursive sees it."""
    level, seen = [schema], 0
    for _ in range(MAX_DEPTH):
        seen += len(level)
        if seen > MAX_BYTES:
            raise _bad("json", f"has more than {MAX_BYTES} bytes")
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
        if not below:
            return
        level = below
    raise _bad("json", f"is nested more than {MAX_DEPTH} deep")


def _expression(value: Any) -> GrammarSource:
    return GrammarSource("regex", _nested("regex", value))


def _grammar(value: Any) -> GrammarSource:
    return GrammarSource("grammar", _nested("grammar", value))


def _nested(name: str, text: Any) -> str:
    """A text whose brackets are not nested too deep."""
    if not isinstance(text, str) or not text:
        raise _bad(name, f"takes a non-empty text, not {shown(text)}")
    _sized(name, text)
    depth, escaped = 0, False
    for c in text:
        if escaped or c == "\\":
            escaped = not escaped
        elif c in "([{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _bad(name, f"is nested more than {MAX_DEPTH} deep")
        elif c in ")]}":
            depth = max(0, depth - 1)
    return text


def _choices(value: Any) -> list[str]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise _bad("choice", f"takes a list of strings, not {shown(value)}")
    if not 0 < len(value) <= MAX_CHOICES:
        raise _bad("choice", f"takes 1 to {MAX_CHOICES} strings, not {len(value)}")
    for choice in value:
        if not isinstance(choice, str) or not choice:
            raise _bad("choice", f"takes non-empty strings, not {shown(choice)}")
    return list(value)


def _one_of(choices: Sequence[str]) -> GrammarSource:
    return GrammarSource("grammar", _sized("choice", "start: " + " | ".join(_quoted(c) for c in choices)))


def _quoted(text: str) -> str:
    return json_module.dumps(text, ensure_ascii=False)

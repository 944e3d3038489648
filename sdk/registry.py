"""The table of in-process registrations: what a notebook, a test or an older guide's `register_model` adds by hand.

Installed plugins never come through here; they are found by their metadata. `core` reads this table last and lets it
win, part by part, because only code that the user runs in this very process writes to it. A class object serves in
this process; a worker process asks for `"module:attribute"`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from .errors import InvalidRequestError, PluginConflictError

IN_PROCESS: Final = "in-process"
"""What stands where an installed plugin has the name of its distribution."""

PARTS: Final = (
    "model",
    "processor",
    "info",
    "dummy_inputs",
    "transcription",
    "tokenizer",
    "capabilities",
    "options",
    "tiny",
    "demo",
)
"""The fields of an `Architecture` that name something to import."""


@dataclass(frozen=True)
class Registration:
    """What was registered by hand for one architecture.

    Attributes:
        architecture: The HF architecture string.
        parts: Part → the object itself, or `"module:attribute"`.
        fields: Other fields of the `Architecture`, e.g. `role` or `model_types`.
    """

    architecture: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


_table: dict[str, Registration] = {}
_lock = threading.Lock()


def register(architecture: str, value: Any, *, part: str = "model", replace: bool = False, **fields: Any) -> None:
    """Register one part of an architecture in this process.

    Args:
        architecture: The HF architecture string, as in config.json's `architectures`.
        value: The class, or `"module:attribute"`, imported when it is first used.
        part: Which part it is; one of `PARTS`.
        replace: Whether another registration of the same part may be replaced. The same target, or a class of the same
            module and name (a notebook cell that ran again), is replaced without being asked.
        **fields: Further parts and fields of the `Architecture`, e.g. `processor=MyProcessor`,
            `role="vision-encoder"`, `model_types=("my_tower",)`.

    Raises:
        InvalidRequestError: An empty name, an unknown part, or a value that is neither an object nor a target.
        PluginConflictError: The part is registered already, as something else.
    """
    if not isinstance(architecture, str) or not architecture.strip():
        raise InvalidRequestError(f"an architecture is a non-empty string, not {architecture!r}", param="architecture")
    if part not in PARTS:
        raise InvalidRequestError(f"unknown part {part!r}; the parts are {', '.join(PARTS)}", param="part")
    if value is None or (isinstance(value, str) and ":" not in value):
        raise InvalidRequestError(f"register a class or 'module:attribute', not {value!r}", param=part)
    given = {part: value} | {name: fields.pop(name) for name in PARTS if name in fields and name != "capabilities"}
    with _lock:
        before = _table.get(architecture, Registration(architecture))
        for name, new in given.items():
            known = before.parts.get(name)
            if known is not None and not replace and identity(known) != identity(new):
                raise PluginConflictError(
                    f"the {name} of {architecture} is registered already, as {identity(known)}; "
                    f"pass replace=True to put {identity(new)} in its place",
                    plugin=IN_PROCESS,
                )
        _table[architecture] = Registration(architecture, {**before.parts, **given}, {**before.fields, **fields})


def unregister(architecture: str) -> None:
    """Forget what was registered by hand for an architecture; nothing happens if there was nothing."""
    with _lock:
        _table.pop(architecture, None)


def registered() -> Mapping[str, Registration]:
    """A read-only copy of the table: architecture → `Registration`."""
    with _lock:
        return MappingProxyType(dict(_table))


def identity(value: Any) -> str:
    """How an object or a target is called in messages, and told from another."""
    if isinstance(value, str):
        return value
    return f"{getattr(value, '__module__', '?')}:{getattr(value, '__qualname__', repr(value))}"

"""Logits processors on their way to the engine: a plugin's are dataclasses, which are sent as their name and their fields.

A function is known to its own process alone, and stays there. What is sent names a class that the engine process can import as
well; a client of the server sends none of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import InvalidRequestError
from ..sampling.params import LogitsProcessor
from . import wire


def write_processor(processor: LogitsProcessor) -> dict[str, Any]:
    """A processor as a name and values.

    Raises:
        InvalidRequestError: It is a function, or of a class that has no name elsewhere.
    """
    kind = type(processor)
    if not is_dataclass(processor) or "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        raise InvalidRequestError(
            "the engine runs in another process, which takes logits_processors that are dataclasses of a module, such as a "
            "plugin's, and no functions; use core.LLM or core.AsyncLLM",
            code="unsupported_parameter",
            param="sampling_params.logits_processors",
        )
    values = {f.name: wire.as_it_is(getattr(processor, f.name)) for f in fields(processor) if f.init}
    return {"target": f"{kind.__module__}:{kind.__qualname__}", "values": values}


def read_processor(written: dict[str, Any]) -> LogitsProcessor:
    """The processor again."""
    module, _, name = written["target"].partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not is_dataclass(found):
        raise TypeError(f"{written['target']} is no dataclass")
    make: Callable[..., LogitsProcessor] = found  # type: ignore[assignment]
    return make(**written["values"])

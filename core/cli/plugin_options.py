"""The `--plugin-option` option of the commands that load a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequestError

PLUGIN_OPTION_HELP = "KEY=VALUE, of the plugin itself (engine plugins show ARCH); may be repeated."


def parse_plugin_options(given: Sequence[str] | None) -> dict[str, Any]:
    """`["rows=4", 'names=["a", "b"]']` → `{"rows": "4", "names": ["a", "b"]}`: a text is read by the option's type.

    Raises:
        InvalidRequestError: One is no KEY=VALUE, is no JSON though it begins so, or is there twice.
    """
    options: dict[str, Any] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        name = name.strip()
        if not (name and separator):
            raise _refused(f"--plugin-option is KEY=VALUE, not {text!r:.60}")
        if name in options:
            raise _refused(f"--plugin-option {name} is there twice")
        options[name] = _value(name, value.strip())
    return options


def _value(name: str, text: str) -> Any:
    if text != "null" and not text.startswith(("[", "{", '"')):
        return text
    try:
        return json.loads(text)
    except ValueError as e:
        raise _refused(f"--plugin-option {name} begins as JSON, but is none: {e}") from e


def _refused(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="--plugin-option")

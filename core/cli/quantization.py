"""The `--quantization` option of the commands that load a model."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidRequestError

QUANTIZATION_HELP = "Scheme that makes the weights smaller, such as int8, or its options as JSON."


def parse_quantization(given: str) -> str | dict[str, Any]:
    """`"int8"` as it is; `'{"quant_method": "int8", "lm_head": false}'` as a mapping."""
    if not given.lstrip().startswith("{"):
        return given
    try:
        values: dict[str, Any] = json.loads(given)
    except ValueError as e:
        raise InvalidRequestError(f"--quantization is a name or a JSON object: {e}", param="--quantization") from e
    return values

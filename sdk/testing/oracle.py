"""What of a model of transformers answers which inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

TEXT = {"input_ids", "attention_mask"}


def answering(hf: Any, inputs: Mapping[str, Any]) -> Any:
    """All of it; of a model that does nothing without a picture its language model, where the inputs are a text alone."""
    asked = inspect.signature(hf.forward).parameters.get("pixel_values")
    needs_picture = asked is not None and asked.default is inspect.Parameter.empty
    return hf.language_model if needs_picture and set(inputs) <= TEXT else hf


def generating(hf: Any) -> list[Any]:
    """Those of its parts whose generation config counts: some have their language model do the work."""
    inner = getattr(hf, "language_model", None)
    return [hf] if inner is None else [hf, inner]

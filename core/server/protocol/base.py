"""What all requests have in common."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeVar

from ...outputs import RequestOutput

T = TypeVar("T")


class _First(FailFast):
    """`FailFast` that may stand in a union, whose members must be hashable."""

    __hash__ = object.__hash__


Listed = Annotated[list[T], _First()]
"""A list of which the first wrong entry is told: a body may hold a million of them."""
Data = str | SkipJsonSchema[bytes]
"""A URL or base64; of a large body, the bytes that it stands for (see `json_body.py`)."""
Name = Annotated[str, Field(max_length=256)]
INT64 = 2**63
LEAST_LOGPROB = -9999.0


class Part(BaseModel):
    """Something within a request. What is not known of it is passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", protected_namespaces=())


class RequestBody(BaseModel):
    """A request.

    Attributes:
        model: Which; left out, the only one.
        user: Of the client's; nothing is done with it.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow", protected_namespaces=())

    model: Annotated[str, Field(max_length=1024)] | None = None
    user: str | None = None

    @property
    def unknown(self) -> list[str]:
        """Parameters that nobody knows."""
        return sorted(self.model_extra or ())


def new_id(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def finite(logprob: float) -> float:
    """A log-probability as JSON has it."""
    return logprob if math.isfinite(logprob) else LEAST_LOGPROB


def usage_of(outputs: list[RequestOutput], generated: int) -> dict[str, Any]:
    """How many tokens prompts had and what was generated for them."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    cached = sum(output.num_cached_tokens for output in outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without what was left out."""
    return {name: value for name, value in values.items() if value is not None}

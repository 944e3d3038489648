"""`/v1/embeddings`: the request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import INT64, Listed, RequestBody
from .completions import TokenIds

MAX_INPUTS = 2048


class EmbeddingRequest(RequestBody):
    """See OpenAI's reference.

    Attributes:
        input: A text, its token ids, or a list of either.
        encoding_format: `base64` is that of little-endian float32 numbers.
        dimensions: Keep this many of each vector's first numbers.
        truncate_prompt_tokens: Most tokens to read of each text, -1 for as many as the model takes; left out, a longer one is
            refused.
        timeout: Seconds that the request may take.
        priority: The lower, the earlier its turn.
    """

    input: (
        str
        | Annotated[Listed[str], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[TokenIds, Field(min_length=1)]
        | Annotated[Listed[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    timeout: float | None = Field(None, gt=0)
    priority: int = Field(0, ge=-INT64, lt=INT64)

"""`/v1/embeddings`: the request."""

from __future__ import annotations

from typing import Literal

from .base import Listed, RequestBody


class EmbeddingRequest(RequestBody):
    """See OpenAI's reference."""

    input: str | Listed[str] | Listed[int] | Listed[Listed[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

"""`/v1/embeddings`: the request."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .pooling import Inputs, PoolingBody


class EmbeddingRequest(PoolingBody):
    """See OpenAI's reference.

    Attributes:
        input: What to make vectors of.
        encoding_format: `base64` is that of little-endian float32 numbers.
        dimensions: Keep this many of each vector's first numbers.
    """

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)

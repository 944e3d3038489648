"""`/v1/rerank`: the request, in the form that Jina's and Cohere's clients know."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Listed
from .pooling import MAX_INPUTS, PoolingBody


class RerankRequest(PoolingBody):
    """Sort documents by how well they answer a query.

    Attributes:
        query: What is asked.
        documents: What may answer it.
        top_n: Tell so many of the best; left out, all.
        return_documents: Send the documents back with their scores.
    """

    query: str
    documents: Annotated[Listed[str], Field(min_length=1, max_length=MAX_INPUTS)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False

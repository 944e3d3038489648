"""What requests have in common whose answer is no text: vectors, classes, scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import INT64, Listed, RequestBody
from .completions import TokenIds

MAX_INPUTS = 2048
Inputs = (
    str
    | Annotated[Listed[str], Field(min_length=1, max_length=MAX_INPUTS)]
    | Annotated[TokenIds, Field(min_length=1)]
    | Annotated[Listed[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]
)
"""A text, its token ids, or a list of either."""


class PoolingBody(RequestBody):
    """A request.

    Attributes:
        truncate_prompt_tokens: Most tokens to read of each text, -1 for as many as the model takes; left out, a longer one is
            refused.
        timeout: Seconds that the request may take.
        priority: The lower, the earlier its turn.
    """

    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    timeout: float | None = Field(None, gt=0)
    priority: int = Field(0, ge=-INT64, lt=INT64)

    @property
    def truncate(self) -> int | bool | None:
        """The same as `PoolingParams` has it."""
        return True if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens

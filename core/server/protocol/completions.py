"""`/v1/completions`: the request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Listed
from .sampling import CompletionFields

MAX_PROMPTS = 256
TokenIds = Listed[int]


class CompletionRequest(CompletionFields):
    """See OpenAI's reference.

    Attributes:
        prompt: Text, token ids, or a list of either.
        logprobs: For each token, the likeliest so many.
        echo: Send the prompt as well.
        max_tokens: Most tokens to generate; with `echo`, 0 is none.
    """

    prompt: (
        str
        | Annotated[Listed[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[TokenIds, Field(min_length=1)]
        | Annotated[Listed[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False
    best_of: int | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):  # and so are all the others
            return [self.prompt]  # one prompt of ids
        return list(self.prompt)

"""`/tokenize` and `/detokenize`: the requests."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import Listed, RequestBody
from .chat import MAX_MESSAGES, Message


class TokenizeRequest(RequestBody):
    """A text, or a conversation that the model's chat template renders.

    Attributes:
        prompt, messages: One of these.
        add_special_tokens: Of a text: those that the model puts around it.
        return_token_strs: Send each token as text as well.
        tools, add_generation_prompt, chat_template_kwargs, chat_template: As in a chat.
    """

    prompt: str | None = None
    messages: Annotated[Listed[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False
    tools: Listed[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: str | None = None


class DetokenizeRequest(RequestBody):
    """Token ids."""

    tokens: Annotated[Listed[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=2**20)]

"""What a request may pass to the model's chat template. The template itself is the model's or the operator's, unless the operator
trusts who sends requests."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import InvalidRequestError

RESERVED = frozenset({
    "chat_template", "conversation", "messages", "tools", "documents", "tokenize", "padding", "truncation", "max_length",
    "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "cache_salt", "processor_kwargs",
})  # fmt: skip
"""Arguments of the function that renders templates, which are not the template's."""


class Templated(Protocol):
    """A request with a conversation."""

    chat_template: str | None
    chat_template_kwargs: dict[str, Any] | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None


def template_kwargs(body: Templated, *, trusted: bool) -> dict[str, Any]:
    """What is passed to the template.

    Args:
        body: The request.
        trusted: Whether it may bring the template itself.

    Raises:
        InvalidRequestError: A name is not the template's.
    """
    if body.chat_template is not None and not trusted:
        raise InvalidRequestError(
            "a request brings no template of its own to this server, unless it was started with --trust-request-template",
            param="chat_template",
        )
    kwargs = dict(body.chat_template_kwargs or {})
    reserved = sorted(RESERVED & set(kwargs))
    if reserved:
        raise InvalidRequestError(f"{reserved[0]!r} is not the template's", param=f"chat_template_kwargs.{reserved[0]}")
    if body.continue_final_message and body.add_generation_prompt:
        raise InvalidRequestError(
            "continue_final_message and add_generation_prompt contradict each other", param="continue_final_message"
        )
    for name in ("add_generation_prompt", "continue_final_message"):
        value = getattr(body, name)
        if value is not None:
            kwargs[name] = value
    if body.chat_template is not None:
        kwargs["chat_template"] = body.chat_template
    if body.continue_final_message:
        kwargs["add_generation_prompt"] = False
    return kwargs

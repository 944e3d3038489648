"""`POST /tokenize` and `POST /detokenize`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...detokenizer import whole_text
from ...errors import InvalidRequestError
from ...inputs import InputProcessor
from ..body import route_for
from ..generation import reply
from ..models import ServedModel
from ..protocol.tokens import DetokenizeRequest, TokenizeRequest
from ..serving import Serving, ignored
from ..templates import template_kwargs


def router(serving: Serving) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/tokenize", response_model=None)
    async def tokenize(request: Request, body: TokenizeRequest) -> Response:
        """The tokens of a text, or of a conversation as the model sees it."""
        model = serving.choose_any(request, body)
        inputs = model.engine.engine.inputs

        def made(ids: list[int]) -> dict[str, Any]:
            out = {"tokens": ids, "count": len(ids), "max_model_len": model.engine.plan.max_model_len}
            return {**out, "token_strs": list(map(inputs.token_text, ids))} if body.return_token_strs else out

        return ignored(await reply(_ids(serving, request, body, model), made, serving.settings, large=True), body)

    @routes.post("/detokenize", response_model=None)
    async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
        """The text of tokens."""
        model = serving.choose_any(request, body)
        work = asyncio.to_thread(_text, model.engine.engine.inputs, body)
        return ignored(await reply(work, lambda text: {"prompt": text}, serving.settings, large=True), body)

    return routes


async def _ids(serving: Serving, request: Request, body: TokenizeRequest, model: ServedModel) -> list[int]:
    inputs = model.engine.engine.inputs
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequestError("give either prompt or messages", param="prompt")
    if body.messages is None:
        text = inputs.check_text(body.prompt)
        return await asyncio.to_thread(_tokenized, inputs.tokenizer, text, body.add_special_tokens)
    messages, _ = await serving.media.open(request, body.messages, model, serving.timeout(None))
    kwargs = template_kwargs(body, trusted=serving.settings.trust_request_template)
    made = await asyncio.to_thread(inputs.process_chat, messages, tools=body.tools, **kwargs)
    return list(made.prompt.prompt_token_ids)


def _tokenized(tokenizer: Any, text: str, add_special_tokens: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])


def _text(inputs: InputProcessor, body: DetokenizeRequest) -> str:
    """The text of the tokens, of which nothing is held afterwards: a million of them take long to free."""
    tokens, body.tokens = body.tokens, []
    size = max(inputs.vocab_size, len(inputs.tokenizer))
    if tokens and max(tokens) >= size:
        i, token = next((i, token) for i, token in enumerate(tokens) if token >= size)
        raise InvalidRequestError(f"{token} is no token of this model", code="invalid_token", param=f"tokens.{i}")
    return whole_text(inputs.tokenizer, tokens)

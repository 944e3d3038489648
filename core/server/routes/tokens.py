"""`POST /tokenize` and `POST /detokenize`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import InvalidRequestError
from ..body import route_for
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
        ids = await _ids(serving, request, body, model)
        inputs = model.engine.engine.inputs
        made: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": model.engine.plan.max_model_len}
        if body.return_token_strs:
            made["token_strs"] = [inputs.token_text(token) for token in ids]
        return ignored(JSONResponse(made), body)

    @routes.post("/detokenize", response_model=None)
    async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
        """The text of tokens."""
        model = serving.choose_any(request, body)
        inputs = model.engine.engine.inputs
        for i, token in enumerate(body.tokens):
            if token >= max(inputs.vocab_size, len(inputs.tokenizer)):
                raise InvalidRequestError(
                    f"{token} is no token of this model", code="invalid_token", param=f"tokens.{i}"
                )
        decode = inputs.tokenizer.decode
        text = await asyncio.to_thread(
            decode, body.tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return ignored(JSONResponse({"prompt": text}), body)

    return routes


async def _ids(serving: Serving, request: Request, body: TokenizeRequest, model: ServedModel) -> list[int]:
    inputs = model.engine.engine.inputs
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequestError("give either prompt or messages", param="prompt")
    if body.messages is None:
        text = inputs.check_text(body.prompt)
        tokenize = inputs.tokenizer
        found = await asyncio.to_thread(tokenize, text, add_special_tokens=body.add_special_tokens, verbose=False)
        return list(found["input_ids"])
    messages, _ = await serving.media.open(request, body.messages, model, serving.timeout(None))
    kwargs = template_kwargs(body, trusted=serving.settings.trust_request_template)
    made = await asyncio.to_thread(inputs.process_chat, messages, tools=body.tools, **kwargs)
    return list(made.prompt.prompt_token_ids)

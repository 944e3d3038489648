"""`POST /v1/embeddings`, for models that make vectors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...errors import EngineError
from ...outputs import RequestOutput
from ...pooling import PoolingParams
from ...pooling.calls import PoolingCall
from ...pooling.outputs import Vector
from ...prompt_forms import as_list
from ..body import route_for
from ..models import ServedModel
from ..protocol.embeddings import EmbeddingRequest
from ..serving import Serving, ignored
from ..sse import unless_gone


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/embeddings", response_model=None)
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Make a vector of each text."""
        model = serving.choose(request, body, "embed")
        outputs = await unless_gone(request, _made(serving, request, body, model))
        for output in outputs:
            serving.ended(model, output, 0, "stop")
        tokens = sum(len(output.prompt_token_ids) for output in outputs)
        state = request.scope["state"]
        state["prompt_tokens"] = state.get("prompt_tokens", 0) + tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        # Of many vectors there are so many digits that writing them would hold up everybody else.
        data = await asyncio.to_thread(_entries, outputs, body.encoding_format == "base64")
        reply = msgspec.json.encode({"object": "list", "data": data, "model": model.name, "usage": usage})
        return ignored(Response(reply, media_type="application/json"), body)

    return routes


async def _made(
    serving: Serving, request: Request, body: EmbeddingRequest, model: ServedModel
) -> Sequence[RequestOutput]:
    """Hand the texts to the engine."""
    most = body.truncate_prompt_tokens
    params = PoolingParams("embed", body.dimensions, truncate=True if most == -1 else most)
    prompts = as_list(body.input)
    serving.log_prompt(request, lambda: prompts)
    call = PoolingCall(prompts, params, list)
    try:
        return await model.engine.pool(call, timeout=serving.timeout(body.timeout), priority=body.priority)
    except EngineError as error:
        error.param = {"prompt": "input", "truncate": "truncate_prompt_tokens"}.get(error.param or "", error.param)
        raise


def _entries(outputs: Sequence[RequestOutput], as_base64: bool) -> list[msgspec.Raw]:
    """The vectors as JSON, one by one, so that other threads have their turn between them."""
    return [
        _entry(index, output.pooled, as_base64) for index, output in enumerate(outputs) if output.pooled is not None
    ]


def _entry(index: int, vector: Vector, as_base64: bool) -> msgspec.Raw:
    shown = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
    return msgspec.Raw(msgspec.json.encode({"object": "embedding", "index": index, "embedding": shown}))

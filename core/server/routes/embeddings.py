"""`POST /v1/embeddings`, for models that make vectors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...pooling import EmbeddingOutput, PoolingParams
from ...pooling.calls import embed_call
from ..body import route_for
from ..pooling import answered, usage
from ..protocol.embeddings import EmbeddingRequest
from ..sending import LargeReply
from ..serving import Serving, ignored


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/embeddings", response_model=None)
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Make a vector of each text."""
        model = serving.choose(request, body, "embed")
        params = PoolingParams("embed", body.dimensions, truncate=body.truncate)
        call = embed_call(model.engine.engine, body.input, params)
        outputs, tokens = await answered(serving, request, body, model, call, "input")
        # Of many vectors there are so many digits that writing them would hold up everybody else.
        common = {"object": "list", "model": model.name, "usage": usage(tokens)}
        reply = await asyncio.to_thread(_written, outputs, body.encoding_format == "base64", common)
        return ignored(LargeReply(reply, serving.settings.write_timeout), body)

    return routes


def _written(outputs: Sequence[EmbeddingOutput], as_base64: bool, common: Mapping[str, Any]) -> bytes:
    """The reply as JSON, its vectors one by one, so that other threads have their turn between them."""
    entries = []
    for index, output in enumerate(outputs):
        vector = output.embedding
        shown = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
        entry = {"object": "embedding", "index": index, "embedding": shown}
        entries.append(msgspec.Raw(msgspec.json.encode(entry)))
    return msgspec.json.encode({**common, "data": entries})

"""`POST /v1/embeddings`, for models that pool. The engine runs none yet, so that the answer is why there is none."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..body import route_for
from ..models import UnsupportedTaskError
from ..protocol.embeddings import EmbeddingRequest
from ..serving import Serving


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/embeddings", response_model=None)
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Make embeddings."""
        model = serving.choose(request, body, "embed")
        raise UnsupportedTaskError(f"this version of the engine makes no embeddings with {model.name!r}", param="model")

    return routes

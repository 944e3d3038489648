"""`POST /v1/rerank`, for models that score pairs of texts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...pooling.calls import score_call
from ..body import route_for
from ..pooling import answered, usage
from ..protocol.base import new_id
from ..protocol.rerank import RerankRequest
from ..serving import Serving, ignored


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/rerank", response_model=None)
    async def rerank(request: Request, body: RerankRequest) -> Response:
        """Sort documents by how well they answer a query, the best first."""
        model = serving.choose(request, body, "score")
        call = score_call(model.engine.engine, body.query, body.documents, body.truncate)
        outputs, tokens = await answered(serving, request, body, model, call, "documents")
        best = sorted(range(len(outputs)), key=lambda index: -outputs[index].score)[: body.top_n]
        results = [_result(body, index, outputs[index].score) for index in best]
        reply = {"id": new_id("rerank"), "model": model.name, "results": results, "usage": usage(tokens)}
        return ignored(JSONResponse(reply), body)

    return routes


def _result(body: RerankRequest, index: int, score: float) -> dict[str, Any]:
    document = {"document": {"text": body.documents[index]}} if body.return_documents else {}
    return {"index": index, "relevance_score": score, **document}

"""`POST /classify`, for classifiers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...pooling.calls import classify_call
from ..body import route_for
from ..pooling import answered, usage
from ..protocol.base import new_id, now
from ..protocol.classify import ClassifyRequest
from ..serving import Serving, ignored


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/classify", response_model=None)
    async def classify(request: Request, body: ClassifyRequest) -> Response:
        """Say which class each text is of."""
        model = serving.choose(request, body, "classify")
        call = classify_call(model.engine.engine, body.input, body.truncate)
        outputs, tokens = await answered(serving, request, body, model, call, "input")
        data = [
            {"index": i, "label": o.label, "probs": o.probs.tolist(), "num_classes": len(o.labels)}
            for i, o in enumerate(outputs)
        ]
        reply = {"id": new_id("classify"), "object": "list", "created": now(), "model": model.name, "data": data}
        return ignored(JSONResponse({**reply, "usage": usage(tokens)}), body)

    return routes

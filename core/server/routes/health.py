"""What watches the server: `/health`, `/ready`, `/metrics`, `/version`."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ... import __version__
from ...errors import DrainingError, EngineError
from ..errors import problem_of
from ..serving import Serving


def router(serving: Serving, is_draining: Callable[[], bool]) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/health", response_model=None)
    async def health() -> Response:
        """Whether every engine is alive."""
        try:
            for model in serving.models:
                await model.engine.check_health()
        except EngineError as error:
            return problem_of(error).response()
        return JSONResponse({"status": "ok"})

    @routes.get("/ready", response_model=None)
    async def ready() -> Response:
        """Whether requests are taken now."""
        if is_draining():
            return problem_of(DrainingError("the server is about to end")).response()
        return await health()

    @routes.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """For Prometheus."""
        return PlainTextResponse(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/version")
    async def version() -> dict[str, str]:
        """Of the engine."""
        return {"version": __version__}

    return routes

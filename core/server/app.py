"""The application, assembled: routes within, then keys, then the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from .. import __version__
from ..errors import EngineError
from .auth import PUBLIC, Auth, Keys
from .errors import problem_of
from .gate import Gate
from .models import Models
from .routes import audio, chat, classify, completions, embeddings, health, models, page, rerank, responses, tokens
from .serving import Serving
from .settings import ServerSettings
from .tracing import Traced, provider_for

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def build_app(served: Models, settings: ServerSettings, traces: TracerProvider | None = None) -> Gate:
    """The whole application for these models.

    Args:
        served: The models.
        settings: The server's options.
        traces: Where spans go; None: where the settings say, if anywhere.
    """
    serving = Serving(served, settings)
    api = FastAPI(title="engine", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for kind in (EngineError, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _reply)
    for routes in (
        chat.router(serving),
        completions.router(serving),
        responses.router(serving),
        embeddings.router(serving),
        rerank.router(serving),
        classify.router(serving),
        audio.router(serving),
        tokens.router(serving),
        models.router(serving),
        page.router(serving),
        health.router(serving, lambda: gate.draining),
    ):
        api.include_router(routes)
    inner: ASGIApp = Auth(api, Keys(settings.api_keys), {*PUBLIC, *page.FILES})
    if settings.allowed_origins:
        origins = list(settings.allowed_origins)
        inner = CORSMiddleware(inner, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    if traces is None and settings.otlp_endpoint is not None:
        traces = provider_for(settings.otlp_endpoint)
    if traces is not None:
        inner = Traced(inner, served, traces)
    gate = Gate(inner, serving.metrics)
    return gate


async def _reply(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    request.state.outcome = problem.code
    return problem.response()

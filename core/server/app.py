"""The application, assembled: routes within, then keys, then the gate."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from .. import __version__
from ..errors import EngineError
from .auth import Auth, Keys
from .errors import problem_of
from .gate import Gate
from .models import Models
from .routes import audio, chat, completions, embeddings, health, models, responses, tokens
from .serving import Serving
from .settings import ServerSettings


def build_app(served: Models, settings: ServerSettings) -> Gate:
    """The whole application for these models."""
    serving = Serving(served, settings)
    api = FastAPI(title="engine", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for kind in (EngineError, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _reply)
    for routes in (
        chat.router(serving),
        completions.router(serving),
        responses.router(serving),
        embeddings.router(serving),
        audio.router(serving),
        tokens.router(serving),
        models.router(serving),
        health.router(serving, lambda: gate.draining),
    ):
        api.include_router(routes)
    inner: ASGIApp = Auth(api, Keys(settings.api_keys))
    if settings.allowed_origins:
        origins = list(settings.allowed_origins)
        inner = CORSMiddleware(inner, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    gate = Gate(inner, serving.metrics)
    return gate


async def _reply(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    request.state.outcome = problem.code
    return problem.response()

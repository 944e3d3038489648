"""What the routes of one server share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidRequestError
from ..outputs import RequestOutput
from .body import BodyReader
from .gauge_series import EngineSeries
from .logs import PROMPTS
from .media import MediaDoor
from .metrics import Metrics
from .models import Models, ServedModel
from .protocol.base import RequestBody
from .settings import ServerSettings

prompts = logging.getLogger(PROMPTS)
MAX_NAMED = 20


@dataclass
class Serving:
    """One server.

    Attributes:
        models: What it serves.
        settings: Its options.
        metrics: Its counts.
        bodies: Reads requests.
        media: Opens what they bring.
    """

    models: Models
    settings: ServerSettings
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.bodies = BodyReader(self.settings)
        self.metrics.registry.register(EngineSeries(self.models))
        self.media = MediaDoor(self.settings)
        self.metrics.watch_fetches(self.media.fetches)

    def choose(self, request: Request, body: RequestBody, task: str) -> ServedModel:
        """The model that a request asks for, and what it asks for that nobody knows.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidRequestError: A parameter is unknown, and the server is strict.
        """
        self._check_known(body)
        return self._chosen(request, self.models.choose(body.model, task))

    def choose_any(self, request: Request, body: RequestBody) -> ServedModel:
        """As `choose`, for what every model does."""
        self._check_known(body)
        return self._chosen(request, self.models.find(body.model))

    def _chosen(self, request: Request, model: ServedModel) -> ServedModel:
        request.state.model = model.name
        return model

    def _check_known(self, body: RequestBody) -> None:
        if body.unknown and self.settings.strict:
            raise InvalidRequestError(
                f"unknown parameter {body.unknown[0][:80]!r}", code="unknown_parameter", param=body.unknown[0][:80]
            )

    def timeout(self, asked: float | None) -> float:
        """Seconds that a request gets."""
        most = self.settings.request_timeout
        return most if asked is None else min(asked, most)

    def log_prompt(self, request: Request, prompt: Callable[[], Any]) -> None:
        """Write a prompt into the log, where prompts were asked for."""
        if self.settings.log_prompts:
            prompts.info("prompt", extra={"facts": {"request_id": request.state.request_id, "prompt": prompt()}})

    def ended(self, model: ServedModel, output: RequestOutput, num_tokens: int, reason: str) -> None:
        """Count a prompt that has ended."""
        self.metrics.ended(model.name, model.plugin, output, num_tokens, reason)


def ignored(response: Response, body: RequestBody) -> Response:
    """The response, with a warning about parameters that were passed over."""
    if body.unknown:
        names = ", ".join(name[:40].encode("ascii", "replace").decode() for name in body.unknown[:MAX_NAMED])
        text = "".join(c if c.isprintable() and c not in '"\\' else "?" for c in names)
        response.headers["Warning"] = f'299 - "unknown parameters were ignored: {text}"'
    return response

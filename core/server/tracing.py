"""Traces, where `--otlp-endpoint` asks for them: a span of each request, within the trace that its client is in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..errors import InvalidConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from .models import Models

_PARENT = ("traceparent", "tracestate")
_FACTS = {
    "request_id": "engine.request_id",
    "model": "gen_ai.request.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "first_token_seconds": "gen_ai.response.time_to_first_chunk",
    "outcome": "error.type",
}
"""What is known of a request → the attribute that says so, by OpenTelemetry's conventions where there is one."""


def check_endpoint(endpoint: str) -> None:
    """Refuse what no collector can be at.

    Raises:
        InvalidConfigError: It is no address, or the extra `otel` is not installed.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidConfigError(
            f"--otlp-endpoint is an address such as http://127.0.0.1:4318, not {endpoint!r:.100}",
            param="--otlp-endpoint",
        )
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as e:
        raise InvalidConfigError(
            f"traces need {e.name!r}, which is not installed: pip install 'engine-plugin-sdk[otel]'",
            param="--otlp-endpoint",
        ) from e


def provider_for(endpoint: str) -> TracerProvider:
    """Sends spans to a collector by OTLP over HTTP, from a thread of its own; what it has left it sends at exit."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"
    service = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "engine"), "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(service))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
    return provider


class Traced:
    """Makes a span of each request that is for a model. It holds no prompt, no answer and no key.

    Args:
        app: What answers.
        served: The models, whose plugins are told.
        provider: Where spans go.
    """

    def __init__(self, app: ASGIApp, served: Models, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self._plugins = {model.name: model.plugin for model in served}
        self._tracer = provider.get_tracer("engine", __version__)
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":  # what is asked of a model is posted
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind

        headers, status = Headers(scope=scope), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        parent = self._propagator.extract({name: headers[name] for name in _PARENT if name in headers})
        span = self._tracer.start_span("POST", context=parent, kind=SpanKind.SERVER)
        try:
            await self.app(scope, receive, send_noted)
        finally:
            self._note(span, scope, status)
            span.end()

    def _note(self, span: Any, scope: Scope, status: int) -> None:
        from opentelemetry.trace import StatusCode

        # The route as it was declared: a path may hold anything.
        route, state = getattr(scope.get("route"), "path", "(none)"), scope["state"]
        span.update_name(f"POST {route}")
        span.set_attributes({"http.request.method": "POST", "http.route": route})
        if status:
            span.set_attribute("http.response.status_code", status)
        span.set_attributes(
            {attribute: state[fact] for fact, attribute in _FACTS.items() if state.get(fact) is not None}
        )
        if state.get("model") in self._plugins:
            span.set_attribute("engine.plugin", self._plugins[state["model"]])
        if status >= 500 or state.get("outcome"):
            span.set_status(StatusCode.ERROR)

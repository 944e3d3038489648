"""A span of each request, within its client's trace, with what a person looks for and nothing that a client said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from core.errors import InvalidConfigError
from core.server.app import build_app
from core.server.models import Models
from core.server.settings import ServerSettings
from core.server.tracing import provider_for

from ..http.conftest import asking, calling

CANARY = "tell-nobody-4711"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest_asyncio.fixture
async def client(models: Models, spans: InMemorySpanExporter) -> AsyncIterator[Any]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with calling(build_app(models, ServerSettings(api_keys=("sk-t",)), provider), "sk-t") as found:
        yield found


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_a_span_of_its_clients_trace(client: Any, spans: Any, models: Models, stream: bool) -> None:
    body = {"model": "tiny", "messages": asking(CANARY), "max_tokens": 4, "stream": stream}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
    reply = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200
    (span,) = spans.get_finished_spans()
    assert span.name == "POST /v1/chat/completions"
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    found = dict(span.attributes)
    first = found.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first <= (span.end_time - span.start_time) / 1e9
    prompt = found.pop("gen_ai.usage.input_tokens")
    assert prompt > 4
    assert found == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "engine.request_id": "mine",
        "gen_ai.request.model": "tiny",
        "gen_ai.usage.output_tokens": 4,
        "engine.plugin": models.find("tiny").plugin,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert CANARY not in span.to_json()


@pytest.mark.asyncio
async def test_without_a_parent_a_trace_begins_and_what_fails_says_how(client: Any, spans: Any) -> None:
    body = {"model": "tiny", "messages": asking(CANARY), "max_tokens": -1}
    for headers in ({}, {"traceparent": "nonsense"}, {"Authorization": "Bearer sk-wrong"}):
        await client.post("/v1/chat/completions", json=body, headers=headers)
    await client.get("/v1/models")
    first, second, third = spans.get_finished_spans()
    assert first.parent is second.parent is third.parent is None
    assert first.context.trace_id != second.context.trace_id
    assert first.attributes["error.type"] == "invalid_request"
    assert first.status.status_code is StatusCode.ERROR
    assert third.attributes["http.response.status_code"] == 401
    assert "sk-" not in "".join(span.to_json() for span in (first, second, third))


@pytest.mark.asyncio
async def test_spans_come_to_the_collector(models: Models) -> None:
    """By OTLP over HTTP, at the address that `--otlp-endpoint` gives."""
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    provider = provider_for(f"http://127.0.0.1:{server.server_address[1]}")
    async with calling(build_app(models, ServerSettings(), provider)) as client:
        await client.post("/v1/completions", json={"prompt": CANARY, "max_tokens": 2})
    await asyncio.to_thread(provider.shutdown)
    server.shutdown()
    server.server_close()
    ((path, body),) = got
    assert path == "/v1/traces"
    assert b"engine" in body or body[:2] == b"\x1f\x8b"  # the service's name, unless it is compressed


@pytest.mark.parametrize("endpoint", ["", "localhost:4317", "grpc://a", "http://"])
def test_what_is_no_collector_is_refused_at_start(endpoint: str) -> None:
    with pytest.raises(InvalidConfigError, match="--otlp-endpoint"):
        ServerSettings.make({"otlp_endpoint": endpoint})


def test_without_an_endpoint_nothing_is_traced(models: Models) -> None:
    def layers(app: Any) -> Iterator[str]:
        while app is not None:
            yield type(app).__name__
            app = getattr(app, "app", None)

    assert "Traced" not in list(layers(build_app(models, ServerSettings())))
    assert "Traced" in list(layers(build_app(models, ServerSettings(), TracerProvider())))
    assert json.loads(ServerSettings().model_dump_json())["otlp_endpoint"] is None

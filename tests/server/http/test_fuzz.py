"""Every route, with requests that its schema allows and with such that it does not: no error of the server's, no hang."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from core.server.app import build_app
from core.server.models import Models
from core.server.settings import ServerSettings

from .conftest import KEY, Served

EXAMPLES = 12
ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/classify",
          "/tokenize", "/detokenize", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models",
          "/v1/models/{model}", "/health", "/ready", "/version", "/metrics"]  # fmt: skip
EXPECTED = {200, 400, 404, 405, 406, 413, 415, 431}


def the_api() -> Any:
    """The application's own description of itself."""
    gate = build_app(Models({}), ServerSettings())
    return gate.app.app  # type: ignore[attr-defined]  # behind the keys


def test_every_route_is_described() -> None:
    paths = the_api().openapi()["paths"]
    assert set(ROUTES) == {path.replace(":path", "") for path in paths}


schema = schemathesis.openapi.from_dict(the_api().openapi())
schema.config.generation.update(modes=[schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_R101_no_request_makes_the_server_fail(case: Any, served: Served, http: httpx2.Client) -> None:
    if isinstance(case.body, dict):  # whatever else it is, it is to be short
        case.body.setdefault("max_tokens", 4)
    response = case.call(base_url=served.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    if response.status_code == 504:  # as the request asked for
        assert response.json()["error"]["code"] == "request_timeout"
    else:
        assert response.status_code in EXPECTED, response.text

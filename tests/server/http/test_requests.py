"""What is refused before any model is asked: bodies, keys, headers, routes. Every reply is small and of one form."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from core.server import auth
from core.server.auth import Keys
from core.server.main import watch_loop
from core.server.metrics import Metrics

from .conftest import application, calling, error_of

pytestmark = pytest.mark.asyncio
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
HELLO = [{"role": "user", "content": "hello"}]
ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/x"),
    ("POST", CHAT),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/classify"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/ready"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b'{"messages": [', JSON, 400, "invalid_json"),
        (b"\xff\xfe", JSON, 400, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', JSON, 400, "invalid_json"),
        (b"[" * 100_000, JSON, 400, "invalid_json"),
        (b"", JSON, 400, "missing_parameter"),
        (b"{}", JSON, 400, "missing_parameter"),
        (b"null", JSON, 400, "invalid_type"),
        (b"[]", JSON, 400, "invalid_type"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {}, 415, "unsupported_media_type"),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ],
)
async def test_R001_a_body_that_is_no_json_is_refused(
    body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with calling(application()) as client:
        response = await client.post(CHAT, content=body, headers=headers)
    assert response.status_code == status
    assert error_of(response)["code"] == code


async def test_R002_a_strict_server_knows_all_parameters() -> None:
    async with calling(application(strict=True)) as client:
        response = await client.post(CHAT, json={"messages": HELLO, "best_guess": 1})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("unknown_parameter", "best_guess")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("temperature", "hot", "temperature"),
        ("temperature", "NaN", "temperature"),
        ("temperature", "Infinity", "temperature"),
        ("temperature", "1e400", "temperature"),
        ("n", "1.5", "n"),
        ("seed", '"1"', "seed"),
        ("messages", '[{"role": 1, "content": "x"}]', "messages.0.role"),
        ("messages", '[{"role": "user", "content": [{"type": "image_url"}]}]', "messages.0.content"),
        ("messages", "[]", "messages"),
        ("stream", '"yes"', "stream"),
        ("stop", "[1]", "stop"),
        ("logit_bias", '{"1": "x"}', "logit_bias.1"),
    ],
)
async def test_R003_a_wrong_value_is_refused_by_its_name(field: str, value: str, param: str) -> None:
    text = value if value[:1] in '["{1NI' else json.dumps(value)
    given = {"messages": json.dumps(HELLO)} | {field: text}
    body = "{" + ", ".join(f'"{k}": {v}' for k, v in given.items()) + "}"
    async with calling(application()) as client:
        response = await client.post(CHAT, content=body.encode(), headers=JSON)
    assert response.status_code == 400
    assert str(error_of(response)["param"]).startswith(param)


async def test_R003_a_number_of_very_many_digits_is_refused() -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}], "seed": 1' + b"0" * 5000 + b"}"
    async with calling(application()) as client:
        response = await client.post(CHAT, content=body, headers=JSON)
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize("junk", [[{}] * 12_000, [[1]] * 12_000, [True] * 12_000, ["x", 1] * 6_000])
@pytest.mark.parametrize("field", ["messages", "stop", "tools"])
async def test_R004_twelve_thousand_errors_make_a_small_reply(field: str, junk: list[Any]) -> None:
    async with calling(application()) as client:
        taken = []
        for _ in range(3):
            start = time.process_time()
            response = await client.post(CHAT, json={"messages": HELLO, field: junk})
            taken.append(time.process_time() - start)
    assert response.status_code in (400, 404)  # the content of a tool is for the model's template to say
    error_of(response)
    assert min(taken) < 0.25  # of which the client's own part is most; a list of all errors takes seconds


async def test_R005_a_body_over_the_cap_is_refused_before_it_is_read() -> None:
    async def endless() -> Any:
        while True:
            yield bytes(1024)

    async with calling(application(max_body_bytes=4096)) as client:
        said = await client.post(CHAT, content=bytes(5000), headers=JSON)
        unsaid = await client.post(CHAT, content=endless(), headers=JSON)
    for response in (said, unsaid):
        assert response.status_code == 413
        assert error_of(response)["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"--x\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n', 400),
        (b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nm\r\n--x--\r\n', 400),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 10_000 + b"--x--\r\n", 400),
        (b"--x\r\nContent-Disposition: " + b"a" * 100_000 + b"\r\n\r\n1\r\n--x--\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * 2**20 + b"\r\n--x--\r\n", 400),
    ],
)
async def test_R006_a_form_that_is_none_is_refused(body: bytes, status: int) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with calling(application()) as client:
        response = await client.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize("key", [None, "", "wrong", "k", "ke", "keyy"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_R007_every_route_asks_for_a_key(method: str, path: str, key: str | None) -> None:
    async with calling(application(api_keys=("key", "other")), key) as client:
        response = await client.request(method, path)
    assert response.status_code == 401
    assert error_of(response)["type"] == "authentication_error"


async def test_R007_any_of_the_keys_opens_and_health_is_open() -> None:
    app = application(api_keys=("key", "other"))
    for key in ("key", "other"):
        async with calling(app, key) as client:
            assert (await client.get("/v1/models")).status_code == 200
    async with calling(app) as client:
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1/%6dodels", "/health/../v1/models", "/health%2e", "/HEALTH", "/healthx"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
async def test_R007_no_spelling_of_a_path_goes_past_the_key(method: str, path: str) -> None:
    app = application(api_keys=("key",))
    async with calling(app) as client:
        headers = {"Host": "localhost/health?", "X-Original-URL": "/health"}
        assert (await client.request(method, path, headers=headers)).status_code == 401


async def test_R007_two_keys_in_one_request_are_none() -> None:
    async with calling(application(api_keys=("key",))) as client:
        headers = [("Authorization", "Bearer key"), ("Authorization", "Bearer wrong")]
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


async def test_R008_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = auth.hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return bool(real(a, b))

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keys = Keys(["first", "second", "third"])
    for given in (b"first", b"third", b"none", b""):
        compared.clear()
        assert keys.accept(given) == (given in (b"first", b"third"))
        assert len(compared) == 3
        assert all(len(a) == len(b) == 32 for a, b in compared)


async def test_R009_pages_of_other_origins_are_not_let_in() -> None:
    asked = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    async with calling(application()) as client:
        response = await client.options(CHAT, headers=asked)
        assert response.status_code == 405
        assert "access-control-allow-origin" not in response.headers
    async with calling(application(allowed_origins=("https://good.test",), api_keys=("key",))) as client:
        assert "access-control-allow-origin" not in (await client.options(CHAT, headers=asked)).headers
        good = await client.options(CHAT, headers={**asked, "Origin": "https://good.test"})
        assert good.headers["access-control-allow-origin"] == "https://good.test"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("BREW", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_R010_what_is_not_there(method: str, path: str, status: int, code: str) -> None:
    async with calling(application()) as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["code"] == code


async def test_R010_a_task_without_a_model_says_why() -> None:
    async with calling(application()) as client:
        response = await client.post("/v1/embeddings", json={"input": "x"})
    assert response.status_code == 404
    assert error_of(response)["code"] == "unsupported_task"


async def test_too_many_headers_are_refused() -> None:
    async with calling(application()) as client:
        response = await client.get("/health", headers={f"x-{i}": "1" for i in range(120)})
    assert response.status_code == 431
    error_of(response)


@pytest.mark.parametrize(("given", "kept"), [("my-id.1", True), ("a b", False), ("x" * 200, False), ("é", False)])
async def test_a_sound_request_id_comes_back(given: str, kept: bool) -> None:
    async with calling(application()) as client:
        response = await client.get("/health", headers={"X-Request-Id": given.encode()})
    assert (response.headers["x-request-id"] == given) == kept


async def test_R092_a_loop_that_stands_still_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    watching = asyncio.create_task(watch_loop(Metrics(), every=0.01))
    await asyncio.sleep(0.02)
    time.sleep(1.2)
    await asyncio.sleep(0.05)
    watching.cancel()
    noticed = re.search(r"the event loop stood still for ([\d.]+) s", caplog.text)
    assert noticed is not None
    assert float(noticed[1]) >= 1.1


async def test_R099_no_series_is_named_by_a_client() -> None:
    async with calling(application()) as client:
        for i in range(50):
            await client.get(f"/v1/models/{i}%22%0A")
            await client.get(f"/none/{i}")
            await client.post(CHAT, json={"model": f'm"\n{i}', "messages": HELLO})
            await client.request(f"BREW{i}", "/health")
        text = (await client.get("/metrics")).text
    assert len([line for line in text.splitlines() if line.startswith("engine_http_requests_total")]) < 12
    assert 'm"' not in text

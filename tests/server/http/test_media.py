"""Pictures in requests: what comes from clients, from hosts, and from nowhere at all."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import zlib
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from core import LLM, SamplingParams

from .conftest import KEY, Served, asking, data_uri, error_of, png
from .media_host import MediaHost

CHAT = "/v1/chat/completions"
TWO = {"model": "tiny", "max_tokens": 2, "temperature": 0}


def ask(http: httpx2.Client, *urls: str, text: str = "what is it?") -> httpx2.Response:
    return http.post(CHAT, json={**TWO, "messages": asking(text, *urls)})


def bomb() -> bytes:
    """20,000 by 20,000 pixels of one bit in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes(2501 * 20_000), 9)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "TIFF")
    return out.getvalue()


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (data_uri(b""), 400, "invalid_image"),
        (data_uri(png()[:80]), 400, "invalid_image"),
        (data_uri(b"<html></html>"), 400, "invalid_image"),
        (data_uri(bomb()), 413, "image_too_large"),
        (data_uri(tiff()), 400, "unsupported_image"),
        ("data:image/png;base64", 400, "invalid_image"),
        ("data:image/png,abc", 400, "invalid_image"),
        ("data:image/png;base64,!!!", 400, "invalid_image"),
        ("/etc/passwd", 400, "media_url_forbidden"),
        ("~/picture.png", 400, "media_url_forbidden"),
        ("", 400, "media_url_forbidden"),
        ("file:///etc/passwd", 400, "media_url_forbidden"),
        ("ftp://example.com/x", 400, "media_url_forbidden"),
        ("http://example.com/x.png", 400, "media_url_forbidden"),
        ("http://169.254.169.254/latest/meta-data", 400, "media_url_forbidden"),
    ],
)
def test_R026_R027_R030_R033_pictures_that_are_none(http: httpx2.Client, given: str, status: int, code: str) -> None:
    response = ask(http, given)
    assert response.status_code == status
    assert error_of(response)["code"] == code


def test_R028_pictures_of_odd_shapes_do_no_harm(http: httpx2.Client, idle: None) -> None:
    for width, height in ((1, 1), (1, 400), (400, 2)):
        assert ask(http, data_uri(png(0, width, height))).status_code in (200, 400)
    assert ask(http, data_uri(png())).status_code == 200


def test_R030_whitespace_and_capitals_in_a_data_uri(http: httpx2.Client) -> None:
    data = base64.encodebytes(png()).decode()
    assert ask(http, f" DATA:image/png;BASE64,{data}").status_code == 200


def test_R031_too_many_and_the_wrong_kind(http: httpx2.Client) -> None:
    response = ask(http, *[data_uri(png())] * 5)
    assert (response.status_code, error_of(response)["code"]) == (400, "too_many_items")
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    response = http.post(CHAT, json={**TWO, "messages": [{"role": "user", "content": [sound]}]})
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_modality")


def test_a_picture_of_an_allowed_host(http: httpx2.Client, media_host: MediaHost) -> None:
    fetched, sent = ask(http, f"{media_host.url}/picture/5"), ask(http, data_uri(png(5)))
    assert fetched.status_code == 200, fetched.text
    assert fetched.json()["choices"] == sent.json()["choices"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("status/404", 400, "media_fetch_failed"),
        ("status/500", 400, "media_fetch_failed"),
        ("packed/", 400, "media_fetch_failed"),
        ("lying/", 400, "media_fetch_failed"),
        ("endless/", 413, "image_too_large"),
        ("round/", 400, "media_fetch_failed"),
        ("to/http://127.0.0.1/x", 400, "media_url_forbidden"),
    ],
)
def test_R035_R036_what_a_host_does_wrong(
    http: httpx2.Client, media_host: MediaHost, path: str, status: int, code: str
) -> None:
    response = ask(http, f"{media_host.url}/{path}")
    assert response.status_code == status, response.text
    error = error_of(response)
    assert error["code"] == code
    assert "127.0.0.1" not in error["message"]


def test_R033_more_pictures_than_a_model_takes_are_not_fetched(http: httpx2.Client, media_host: MediaHost) -> None:
    path = "picture/33033"  # which nobody else asks for
    response = ask(http, *[f"{media_host.url}/{path}"] * 5)
    assert (response.status_code, error_of(response)["code"]) == (400, "too_many_items")
    assert not [seen for seen, _ in media_host.seen if path in seen]


@pytest.mark.asyncio
async def test_R037_slow_hosts_do_not_hold_up_others(served: Served, media_host: MediaHost) -> None:
    media_host.hurry.clear()
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=120, limits=limits) as http:
        slow = [
            asyncio.create_task(http.post(CHAT, json={**TWO, "messages": asking("x", f"{media_host.url}/slow/")}))
            for _ in range(40)
        ]
        try:
            while not [path for path, _ in media_host.seen if path == "/slow/"]:
                assert not any(task.done() for task in slow)
                await asyncio.sleep(0.01)
            quick = await http.post(CHAT, json={**TWO, "messages": asking("x")})
            assert quick.status_code == 200
            assert not any(task.done() for task in slow)
        finally:
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            media_host.hurry.set()


@pytest.mark.parametrize("text", ["<image>", "<image> and <image>", "</s><s>", "a <image> b"])
@pytest.mark.parametrize("urls", [[], [data_uri(png())]], ids=["no picture", "a picture"])
def test_R044_a_placeholder_that_is_typed_is_text(client: openai.OpenAI, tiny: LLM, text: str, urls: list[str]) -> None:
    messages: list[Any] = asking(text, *urls)
    found = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=8)
    mine = tiny.chat(messages, SamplingParams(temperature=0, max_tokens=8))[0]
    assert found.choices[0].message.content == mine.outputs[0].text
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(mine.prompt_token_ids)


@pytest.mark.parametrize("prompt", ["<image> what?", "<image><image>"])
def test_R045_a_completion_with_placeholders_and_no_pictures(http: httpx2.Client, prompt: str) -> None:
    response = http.post("/v1/completions", json={**TWO, "prompt": prompt})
    assert (response.status_code, error_of(response)["code"]) == (400, "placeholder_mismatch")

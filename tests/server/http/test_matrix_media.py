"""Rows of the matrix that are about media, again as a client meets them: what the engine in process does, the server does."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile
from PIL import Image

from core import LLM, SamplingParams

from .conftest import asking, data_uri, error_of, gauges, png, wait_until_idle, wav
from .media_host import MediaHost

CHAT = "/v1/chat/completions"
ASKED = {"model": "tiny", "max_tokens": 6, "temperature": 0}
MINE = SamplingParams(temperature=0, max_tokens=6)
EXIF_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(mode: str, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.open(io.BytesIO(png(7, *size))).convert(mode)


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encoded(noise("RGB"), "JPEG", exif=exif)


FORMS = {
    "cmyk": encoded(noise("CMYK"), "JPEG"),
    "palette": encoded(noise("P"), "PNG", transparency=3),
    "grey and alpha": encoded(noise("LA"), "PNG"),
    "sixteen bits": encoded(Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60)), "PNG"),
    "turned": rotated(6),
    "mirrored": rotated(5),
    "animated": encoded(noise("RGB"), "GIF", save_all=True, append_images=[noise("RGB", (60, 40))], duration=20),
    "webp": encoded(noise("RGBA"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_R029_a_picture_of_any_form_is_what_the_engine_sees(http: httpx2.Client, tiny: LLM, data: bytes) -> None:
    messages = asking("what is it?", data_uri(data))
    response = http.post(CHAT, json={**ASKED, "messages": messages})
    assert response.json()["choices"][0]["message"]["content"] == tiny.chat(messages, MINE)[0].outputs[0].text


def test_R032_pictures_that_are_alike_and_salts_that_differ_share_nothing(http: httpx2.Client, tiny: LLM) -> None:
    wait_until_idle(http)  # what others left behind would be counted, too
    pixels = np.random.default_rng(11).integers(0, 255, 30 * 150 * 3, dtype=np.uint8)
    wide, tall = (Image.fromarray(pixels.reshape(*size, 3)) for size in ((30, 150), (150, 30)))
    for image in (wide, tall, wide.convert("L"), wide.convert("P"), wide.quantize(8)):
        messages = asking("look", data_uri(encoded(image, "PNG")))
        found = http.post(CHAT, json={**ASKED, "messages": messages}).json()
        assert found["choices"][0]["message"]["content"] == tiny.chat(messages, MINE)[0].outputs[0].text
    asked = {**ASKED, "messages": asking("look", data_uri(png(99)))}
    hits = [gauges(http, "engine_mm_cache_hits_total")]
    for salt in ("a", "b", "a"):
        assert http.post(CHAT, json={**asked, "cache_salt": salt}).status_code == 200
        hits.append(gauges(http, "engine_mm_cache_hits_total"))
    assert hits[0] == hits[1] == hits[2] != hits[3]


@pytest.mark.parametrize(
    "given",
    [
        "http://user:secret@localhost:{port}/{path}",
        "http://localhost.:{port}/{path}",
        "http://localhost:{port}\\@evil.test/{path}",
        "http://evil.test\\@localhost:{port}/{path}",
        "http://127.0.0.1:{port}/{path}",
        "http://0x7f.1:{port}/{path}",
        "http://[::1]:{port}/{path}",
        "http://[::ffff:127.0.0.1]:{port}/{path}",
        "http://10.0.0.1/{path}",
        "http://169.254.169.254/latest",
    ],
)
def test_R034_no_spelling_of_a_host_leads_elsewhere(http: httpx2.Client, media_host: MediaHost, given: str) -> None:
    path = "picture/34034"  # which nobody else asks for: what others did may arrive meanwhile
    response = http.post(CHAT, json={**ASKED, "messages": asking("x", given.format(port=media_host.port, path=path))})
    assert (response.status_code, error_of(response)["code"]) == (400, "media_url_forbidden")
    assert not any(word in response.text for word in ("127.0.0.1", "::1", "secret"))
    assert not [seen for seen, _ in media_host.seen if path in seen]


# ---- sound ----------------------------------------------------------------------------------------------------------


def hear(http: httpx2.Client, clip: bytes) -> httpx2.Response:
    return http.post("/v1/audio/transcriptions", files={"file": ("x", clip)}, data={"model": "ear", "language": "en"})


def written(wave: Any, rate: int, kind: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(
    ("rate", "channels", "kind", "subtype"),
    [
        (8_000, 1, "WAV", "PCM_U8"),
        (44_100, 2, "WAV", "PCM_24"),
        (48_000, 6, "WAV", "FLOAT"),
        (16_000, 2, "FLAC", "PCM_16"),
        (48_000, 2, "OGG", "OPUS"),
        (44_100, 2, "MP3", "MPEG_LAYER_III"),
    ],
)
def test_R039_a_clip_of_any_form_is_what_the_engine_hears(
    http: httpx2.Client, ear: LLM, rate: int, channels: int, kind: str, subtype: str
) -> None:
    times = np.arange(rate) / rate
    wave = np.stack([0.4 * np.sin(2 * np.pi * (220 + 330 * c) * times) for c in range(channels)], axis=1)
    clip = written(wave, rate, kind, subtype)
    response = hear(http, clip)
    assert response.status_code == 200, response.text
    assert response.json()["text"] == ear.transcribe(clip, language="en").text


def forged(**fields: int) -> bytes:
    """A WAV whose header says what is not so."""
    data = bytearray(wav(0.5))
    for name, value in fields.items():
        offset, form = {"channels": (22, "<H"), "rate": (24, "<I"), "bytes": (40, "<I")}[name]
        struct.pack_into(form, data, offset, value)
    return bytes(data)


BOMBS = {
    "hours of silence": written(np.zeros((16_000 * 3600, 1), np.int16), 16_000, "FLAC", "PCM_16"),
    "a rate that is none": forged(rate=2**31),
    "no rate": forged(rate=0),
    "many channels": forged(channels=256),
    "no samples": wav(0.5)[:44],
    "a picture": png(),
}


@pytest.mark.parametrize("clip", BOMBS.values(), ids=BOMBS)
def test_R038_clips_that_lie_are_refused(http: httpx2.Client, clip: bytes) -> None:
    response = hear(http, clip)
    assert response.status_code in (400, 413), response.text
    assert "audio" in error_of(response)["code"]


def test_R042_video_is_no_part_of_a_message(http: httpx2.Client) -> None:
    part = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    response = http.post(CHAT, json={**ASKED, "messages": [{"role": "user", "content": [part]}]})
    assert response.status_code == 400
    assert "image_url" in error_of(response)["message"], "what is"
    response = http.post(CHAT, json={**ASKED, "messages": asking("x", "data:video/jpeg;base64,AAAA,BBBB")})
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_image")


def test_R046_five_hundred_pictures_are_refused_at_once(http: httpx2.Client) -> None:
    content = asking("x", *[data_uri(png(0, 60, 60)[:-99])] * 512)  # none of them is looked at: each is broken
    response = http.post(CHAT, json={**ASKED, "messages": content})
    assert (response.status_code, error_of(response)["code"]) == (400, "too_many_items")


def test_a_clip_of_an_allowed_host_is_fetched_by_llm(whisper_folder: Path, media_host: MediaHost) -> None:
    allowed = {
        "allowed_media_hosts": [f"localhost:{media_host.port}"],
        "allowed_media_networks": ["127.0.0.0/8", "::1/128"],
    }
    with LLM(str(whisper_folder), dtype="float32", disable_progress=True, **allowed) as llm:
        found = llm.transcribe([f"{media_host.url}/clip/", wav()], language="en")
        assert found[0].text == found[1].text
        (failed,) = llm.transcribe(["http://elsewhere.test/clip"], on_error="return")
        assert failed.error is not None
        assert failed.error.code == "media_url_forbidden"

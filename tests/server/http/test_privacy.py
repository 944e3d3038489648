"""What a client sends is nowhere to be found afterwards, unless the operator asked for it."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from .conftest import ENGINE, PATIENCE, Start, asking, data_uri, png, wav

pytestmark = pytest.mark.slow
CANARY = "c4n4ry-5ecret"


def send_everything(url: str, key: str) -> str:
    """Put the canary wherever a client can put something; what the metrics say afterwards."""
    headers = {"Authorization": f"Bearer {key}", "X-Secret": CANARY}
    chat = "/v1/chat/completions"
    with httpx2.Client(base_url=url, timeout=PATIENCE, headers=headers) as http:
        ask = {"model": "tiny", "max_tokens": 2, "messages": asking(f"{CANARY} 🌍 what?")}
        assert http.post(chat, json=ask).status_code == 200
        assert http.post(chat, json={**ask, "stream": True}).status_code == 200
        assert (
            http.post("/v1/completions", json={"model": "tiny", "prompt": CANARY, "max_tokens": 2}).status_code == 200
        )
        http.get(f"/v1/models?{CANARY}=1")
        http.get(f"/{CANARY}")
        http.post(chat, json={**ask, CANARY: 1})
        http.post(chat, json={**ask, "model": CANARY})
        http.post(chat, json={**ask, "user": CANARY, "n": 0})
        http.post(chat, content=f'{{"messages": "{CANARY}'.encode(), headers={"Content-Type": "application/json"})
        http.post(chat, json={**ask, "messages": asking("x", data_uri(png()[:50] + CANARY.encode()))})
        http.post(chat, json={**ask, "messages": asking("x", f"http://{CANARY}.test/{CANARY}")})
        http.post(chat, json=ask, headers={"Authorization": f"Bearer {CANARY}"})
        http.post("/v1/audio/transcriptions", files={"file": (f"{CANARY}.wav", wav(0.2))}, data={"prompt": CANARY})
        http.post(chat, json={**ask, "structured_outputs": {"regex": f"(({CANARY}"}})
        return http.get("/metrics").text


def test_R098_nothing_of_a_request_is_in_the_log(start: Start, llava_folder: Path) -> None:
    key = f"sk-{CANARY}"
    name = ["--served-model-name", "tiny", "--api-key", key, "--log-level", "debug", "--log-format", "json"]
    with start(str(llava_folder), *name, *ENGINE) as served:
        assert CANARY not in send_everything(served.url, key)
        assert served.end() == 0
        served._reader.join(PATIENCE)
        assert CANARY not in served.log
        assert '"route": "/v1/chat/completions"' in served.log


def test_R094_R098_prompts_are_logged_where_they_are_asked_for(start: Start, llava_folder: Path) -> None:
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}
    arguments = [str(llava_folder), "--served-model-name", "tiny", "--log-prompts", *ENGINE]
    with start(*arguments, environment=odd) as served:
        send_everything(served.url, "none")
        served.wait_for(CANARY)

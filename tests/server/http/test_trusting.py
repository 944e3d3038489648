"""What a server takes only where its operator said so: templates and embeddings of a client's. Of two models, one may die."""

from __future__ import annotations

import base64
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from safetensors.torch import save

from core import LLM, SamplingParams

from .conftest import ENGINE, PATIENCE, Served, Start, asking, error_of, shared, wait_until_idle
from .test_lifecycle import children, engines, is_running

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
ASKED = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
MINE = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def trusting(start: Start, llava_folder: Path) -> Iterator[Served]:
    """Two models, the second of which dies in the last test."""
    names = ["--served-model-name", "one", "--served-model-name", "two", "--engine-restarts", "0"]
    flags = ["--trust-request-template", "--enable-mm-embeds", "--input-processes", "2"]
    with start(str(llava_folder), str(llava_folder), *names, *flags, *ENGINE) as served, shared(served):
        yield served


@pytest.fixture(scope="module")
def there(trusting: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=trusting.url, timeout=PATIENCE) as found:
        yield found


def templated(http: httpx2.Client, template: str, **more: Any) -> httpx2.Response:
    asked = {"model": "one", "messages": asking("hi"), "chat_template": template, **ASKED, **more}
    return http.post(CHAT, json=asked)


# ---- templates ------------------------------------------------------------------------------------------------------


def test_R018_a_template_of_the_requests_own(there: httpx2.Client, tiny: LLM) -> None:
    template = "SAY: {{ messages[0].content }} {{ mood }}"
    response = templated(there, template, chat_template_kwargs={"mood": "calmly"})
    mine = tiny.chat(asking("hi"), MINE, chat_template=template, mood="calmly")[0]
    assert response.json()["choices"][0]["message"]["content"] == mine.outputs[0].text
    made = there.post("/tokenize", json={"model": "one", "messages": asking("hi"), "chat_template": template})
    assert made.json()["count"] == len(
        tiny.chat(asking("hi"), MINE, chat_template=template, mood="")[0].prompt_token_ids
    )


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{% for m in messages %}", "template_error"),
        ("{{ raise_exception('no') }}", "template_error"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "template_error"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "template_error"),
        ("{% for i in range(1000000000) %}{% endfor %}", "template_error"),
        ("{{ 'a' * 100000000 }}", "context_length_exceeded"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "template_error"),
    ],
)
def test_R019_a_template_that_fails_or_does_not_end(
    trusting: Served, there: httpx2.Client, tiny: LLM, template: str, code: str
) -> None:
    own = children(trusting.process.pid)
    bad: list[httpx2.Response] = []
    thread = threading.Thread(target=lambda: bad.append(templated(there, template)))
    thread.start()
    good = there.post(CHAT, json={"model": "one", "messages": asking("hi"), **ASKED})
    thread.join(PATIENCE)
    assert good.json()["choices"][0]["message"]["content"] == tiny.chat(asking("hi"), MINE)[0].outputs[0].text
    assert (bad[0].status_code, error_of(bad[0])["code"]) == (400, code)
    assert children(trusting.process.pid) == own, "no process was lost"


# ---- tools ----------------------------------------------------------------------------------------------------------

TOOLS = "{% if tools %}<tool_call>{{ tools | tojson }}</tool_call>{% endif %}{{ messages[0].content }}"


@pytest.mark.parametrize(("most", "reason"), [(5, "length"), (200, "tool_calls")])
def test_R025_a_call_is_read_and_one_that_is_cut_off_is_text(there: httpx2.Client, most: int, reason: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["one"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "add", "parameters": schema}}]
    wanted = {"type": "function", "function": {"name": "add"}}
    more: dict[str, Any] = {"tools": tools, "tool_choice": wanted, "max_tokens": most, "ignore_eos": False}
    (choice,) = templated(there, TOOLS, **more).json()["choices"]
    assert choice["finish_reason"] == reason
    if reason == "length":
        assert choice["message"]["content"].startswith("{")
        assert "tool_calls" not in choice["message"]
    else:
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"


# ---- embeddings -----------------------------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def embeds(file: bytes) -> list[dict[str, Any]]:
    part = {"type": "image_embeds", "image_embeds": base64.b64encode(file).decode()}
    return [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]


@pytest.mark.parametrize("rows", [9, 300])  # small, and what is taken out of a large body
@pytest.mark.parametrize("form", ["npy", "safetensors"])
def test_embeddings_stand_for_a_picture(there: httpx2.Client, tiny: LLM, form: str, rows: int) -> None:
    given = torch.randn(rows, tiny.engine.inputs.hidden_size, generator=torch.Generator().manual_seed(1))
    file = npy(given.numpy()) if form == "npy" else save({"x": given})
    response = there.post(CHAT, json={"model": "one", "messages": embeds(file), **ASKED})
    parts = [{"type": "image_embeds", "image_embeds": given}, {"type": "text", "text": "what?"}]
    mine = tiny.chat([{"role": "user", "content": parts}], MINE)[0]
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == mine.outputs[0].text
    assert response.json()["usage"]["prompt_tokens"] == len(mine.prompt_token_ids)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"no file",
        npy(np.zeros((3, 5), np.float32)),
        npy(np.full((3, 64), np.nan, np.float32)),
        npy(np.zeros(64, np.float32)),
        npy(np.zeros((0, 64), np.float32)),
        npy(np.zeros((3, 64), np.int64)),
        npy(np.array([{"a": 1}], dtype=object)),
        npy(np.zeros((3, 64), np.float32))[:200],
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 64), }"
        + b" " * 45
        + b"\n",
        save({"a": torch.zeros(2, 64), "b": torch.zeros(2, 64)}),
        save({"a": torch.zeros(2, 64)})[:50],
    ],
    ids=range(12),
)
def test_what_are_no_embeddings_is_refused(there: httpx2.Client, file: bytes) -> None:
    response = there.post(CHAT, json={"model": "one", "messages": embeds(file), **ASKED})
    assert response.status_code == 400, response.text
    error_of(response)


def test_embeddings_are_refused_where_nobody_allowed_them(http: httpx2.Client) -> None:
    response = http.post(CHAT, json={"model": "tiny", "messages": embeds(npy(np.zeros((3, 64), np.float32))), **ASKED})
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_parameter")


# ---- two models -----------------------------------------------------------------------------------------------------


def test_R090_of_two_models_one_dies_and_the_other_goes_on(trusting: Served, there: httpx2.Client, tiny: LLM) -> None:
    wait_until_idle(there)
    first, second = engines(trusting)
    os.kill(first, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while there.get("/health").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    found = {m: there.post(CHAT, json={"model": m, "messages": asking("hi"), **ASKED}) for m in ("one", "two")}
    alive = next(name for name, response in found.items() if response.status_code == 200)
    dead = "two" if alive == "one" else "one"
    assert found[alive].json()["choices"][0]["message"]["content"] == tiny.chat(asking("hi"), MINE)[0].outputs[0].text
    assert (found[dead].status_code, error_of(found[dead])["code"]) == (503, "engine_dead")
    assert trusting.process.poll() is None
    os.kill(second, signal.SIGKILL)
    assert trusting.ended() == 1
    assert "error: the engine has stopped" in trusting.log or "SIGKILL" in trusting.lines[-1]
    assert not any(is_running(pid) for pid in (first, second))

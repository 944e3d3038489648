"""Rows of the matrix about grammars, names, deadlines and text, again as a client meets them; the rest has files of its own."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st

from core import LLM, SamplingParams
from core.server import json_body

from .conftest import Served, asking, error_of, gauges, held
from .test_lifecycle import children, engines

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
FREE = {**ASKED, "ignore_eos": False}
"""Ended by the model, as grammars want it."""
MINE = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


# ---- grammars -------------------------------------------------------------------------------------------------------


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def heavy(number: int) -> dict[str, Any]:
    """One that takes long, each another."""
    if number % 2:
        return {"regex": f"(.*a.{{{60 + number}}})+(.*b.{{50}})+"}
    return {"json": {"type": "object", "properties": {f"{number}_{i}": {"type": "string"} for i in range(900)}}}


@pytest.mark.parametrize(
    "structured",
    [
        {"json": deep(400)},
        {"json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}}},
        {"regex": "(.*a.{60})+(.*b.{50})+" * 40},
        {"regex": "(" * 5000},
        {"grammar": "start: " + '"a" | ' * 20_000 + '"b"'},
    ],
    ids=["deep", "wide", "explosive", "unclosed", "long"],
)
def test_R021_R022_a_pathological_grammar_is_answered_in_time(http: httpx2.Client, structured: Any, idle: None) -> None:
    start = time.monotonic()
    response = http.post(CHAT, json={**FREE, "messages": asking("x"), "structured_outputs": structured})
    assert time.monotonic() - start < 30
    if response.status_code != 200:  # else it was not that bad
        assert response.status_code == 400, response.text
        assert error_of(response)["code"] in ("invalid_grammar", "grammar_timeout", "grammar_error", "invalid_request")


def test_R022_many_heavy_grammars_at_once_disturb_nobody(
    served: Served, http: httpx2.Client, tiny: LLM, idle: None
) -> None:
    mine = tiny.chat(asking("hi"), MINE)[0].outputs[0].text
    http.post(
        CHAT, json={**FREE, "messages": asking("x"), "structured_outputs": {"regex": "[ab]+"}}
    )  # a child is there
    before = len(children(served.process.pid))
    bodies = [{**FREE, "messages": asking("x"), "structured_outputs": heavy(i)} for i in range(60)]
    start = time.monotonic()
    with ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(http.post, CHAT, json=body) for body in bodies]
        good = [http.post(CHAT, json={**ASKED, "messages": asking("hi")}) for _ in range(5)]
    assert [g.json()["choices"][0]["message"]["content"] for g in good] == [mine] * 5
    for response in (future.result() for future in asked):
        assert response.status_code in (200, 400), response.text
        assert response.status_code == 200 or error_of(response)["code"] in ("grammar_timeout", "grammar_error")
    assert time.monotonic() - start < 100
    assert len(children(served.process.pid)) == before
    after = {**FREE, "messages": asking("x"), "structured_outputs": {"choice": ["fine"]}}
    assert http.post(CHAT, json=after).json()["choices"][0]["message"]["content"] == "fine"


# ---- names and deadlines --------------------------------------------------------------------------------------------


def test_R083_one_name_for_many_requests(http: httpx2.Client, tiny: LLM) -> None:
    prompts = [f"question {i}" for i in range(24)]
    mine = [output.outputs[0].text for output in tiny.generate(prompts, MINE)]

    def ask(prompt: str) -> httpx2.Response:
        return http.post("/v1/completions", json={**ASKED, "prompt": prompt}, headers={"X-Request-Id": "same"})

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, prompts))
    assert [response.json()["choices"][0]["text"] for response in found] == mine
    assert {response.headers["x-request-id"] for response in found} == {"same"}
    assert len({response.json()["id"] for response in found}) == 24


def test_R088_a_deadline_that_passes_while_others_have_their_turn(
    served: Served, http: httpx2.Client, idle: None
) -> None:
    long = {**ASKED, "messages": asking("x"), "max_tokens": 400, "n": 16}
    busy = [threading.Thread(target=lambda: http.post(CHAT, json=long)) for _ in range(20)]
    for thread in busy:
        thread.start()
    while not gauges(http, "engine_num_requests_running")["engine_num_requests_running"]:
        if not any(thread.is_alive() for thread in busy):  # all of them while this one had no time
            break
    with held(*engines(served)):  # their turn lasts until its time is over
        response = http.post(CHAT, json={**long, "timeout": 0.4})
    assert (response.status_code, error_of(response)["code"]) == (504, "request_timeout")
    for thread in busy:
        thread.join()


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_R097_bytes_that_never_become_a_character_come_out_at_the_end(client: openai.OpenAI, tiny: LLM, n: int) -> None:
    tokenizer = tiny.get_tokenizer()
    broken = next(i for i in range(4, len(tokenizer)) if tokenizer.decode([i]) == "�")
    held = {"allowed_token_ids": [broken], "ignore_eos": True}
    asked: dict[str, Any] = {"model": "tiny", "prompt": "x", "max_tokens": 5, "n": n, "temperature": 1}
    whole = client.completions.create(**asked, extra_body=held)
    texts = dict.fromkeys(range(n), "")
    for chunk in client.completions.create(**asked, extra_body=held, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [choice.text for choice in whole.choices]
    assert all(text and set(text) == {"�"} for text in texts.values())


# ---- what bodies may hold -------------------------------------------------------------------------------------------

FILES = st.binary(min_size=24, max_size=70).map(lambda data: base64.b64encode(data).decode())
STRINGS = st.one_of(st.text(max_size=8), FILES, st.builds("{}data:{};base64,{}".format, st.sampled_from(["", " "]),
                                                         st.sampled_from(["", "image/png"]), FILES))  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["url", "data", "type", "x"]), inner),
    max_leaves=6,
)
PARTS = st.dictionaries(st.sampled_from(["type", "image_url", "input_audio", "url", "text"]), VALUES)
BODIES = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"content": st.lists(PARTS) | VALUES})), "x": VALUES}
)


def as_sent(value: Any, given: Any) -> Any:
    """A parsed value with its media in the strings that they were sent as; these are checked on the way."""
    if isinstance(value, bytes):
        assert isinstance(given, str)
        assert base64.b64decode(given.rpartition(",")[2], validate=True) == value
        return given
    if isinstance(value, dict):
        return {k: as_sent(v, given[k]) for k, v in value.items()}
    return [as_sent(v, g) for v, g in zip(value, given, strict=True)] if isinstance(value, list) else value


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(body=BODIES, ascii=st.booleans())
def test_R102_nothing_is_lost_of_a_body_whose_media_are_taken_out(body: Any, ascii: bool) -> None:
    sent = json.dumps(body, ensure_ascii=ascii).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_body, "BLOCK", 8)
        patched.setattr(json_body, "PIECE", 16)
        assert as_sent(json_body.parse(bytearray(sent)), body) == body


def outcome(read: Callable[[bytearray], Any], sent: bytearray) -> Any:
    """What comes of a body."""
    try:
        return read(sent)
    except (ValueError, HTTPException):
        return "refused"


def as_json(sent: bytearray) -> Any:
    """What Python says of it, but for halves of characters, which no text may hold."""
    value = json.loads(sent)
    json.dumps(value, ensure_ascii=False).encode()
    return value


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    body=BODIES,
    cuts=st.lists(st.integers(0, 400), min_size=1, max_size=3),
    put=st.sampled_from([b"", b'"', b"\\", b"{", b"\x00"]),
)
def test_R102_a_damaged_body_is_parsed_or_refused_as_json_does(body: Any, cuts: list[int], put: bytes) -> None:
    sent = bytearray(json.dumps(body).encode())
    for cut in cuts:
        sent[cut : cut + 1] = put
    expected = outcome(as_json, sent)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_body, "BLOCK", 8)
        patched.setattr(json_body, "PIECE", 16)
        found = outcome(json_body.parse, sent)
    assert found == expected == "refused" or as_sent(found, expected) == expected

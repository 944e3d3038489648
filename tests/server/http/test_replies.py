"""What is sent in pieces: log-probabilities of a stream that piled up, and replies of any size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from core.outputs import CompletionOutput, Logprob, RequestOutput
from core.server.generation import EVENT_TOKENS, in_pieces
from core.server.json_reply import as_json
from core.server.sending import PIECE_BYTES, LargeReply

pytestmark = pytest.mark.asyncio


def completion(index: int, count: int, *, logprobs: bool = True, reason: str | None = None) -> CompletionOutput:
    """Tokens whose texts are their numbers; the first adds nothing to the text, as special tokens do not."""
    ids = list(range(count))
    found = [{token: Logprob(-token, 1, f"{token} ")} for token in ids] if logprobs else None
    return CompletionOutput(index, "".join(f"{token} " for token in ids[1:]), ids, found, finish_reason=reason)


async def pieces_of(*completions: CompletionOutput, finished: bool = False) -> list[RequestOutput]:
    async def outputs() -> AsyncGenerator[RequestOutput, None]:
        yield RequestOutput("x", None, [1], list(completions), finished)

    return [piece async for piece in in_pieces(outputs())]


@pytest.mark.parametrize("count", [1, EVENT_TOKENS, EVENT_TOKENS + 1, 2 * EVENT_TOKENS, 5 * EVENT_TOKENS + 3])
async def test_what_piled_up_comes_in_pieces_that_are_the_whole(count: int) -> None:
    whole = [completion(0, count, reason="stop"), completion(1, 3)]
    pieces = await pieces_of(*whole, finished=True)
    parts = [part for piece in pieces for part in piece.outputs]
    assert max(len(part.token_ids) for part in parts) <= EVENT_TOKENS
    for one in whole:
        own = [part for part in parts if part.index == one.index]
        assert "".join(part.text for part in own) == one.text
        assert [token for part in own for token in part.token_ids] == one.token_ids
        assert [found for part in own for found in part.logprobs or ()] == one.logprobs
        assert [part.finish_reason for part in own] == [None] * (len(own) - 1) + [one.finish_reason]
    assert [piece.finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]


async def test_a_piece_has_about_the_text_of_its_tokens() -> None:
    pieces = await pieces_of(completion(0, 4 * EVENT_TOKENS))
    for number, piece in enumerate(pieces):
        assert f" {EVENT_TOKENS * number + 5} " in piece.outputs[0].text


async def test_what_has_no_logprobs_stays_as_it_is() -> None:
    (piece,) = await pieces_of(completion(0, 1000, logprobs=False), completion(1, 1000, logprobs=False))
    assert [len(part.token_ids) for part in piece.outputs] == [1000, 1000]


@pytest.mark.parametrize("ends", [True, False])
async def test_what_a_prompt_has_brought_is_freed_when_the_stream_ends_or_is_left(ends: bool) -> None:
    found: list[dict[int, Logprob] | None] = [None, {1: Logprob(-1.0, 1, "a")}, {2: Logprob(-2.0, 1, "b")}]

    async def outputs() -> AsyncGenerator[RequestOutput, None]:
        for count in (1, 2):
            yield RequestOutput("x", None, [1, 1, 2], [completion(0, count)], count == 2, prompt_logprobs=found)

    stream = in_pieces(outputs())
    assert (await anext(stream)).prompt_logprobs == [None, {1: Logprob(-1.0, 1, "a")}, {2: Logprob(-2.0, 1, "b")}]
    if ends:
        assert [piece.finished async for piece in stream] == [True]
    else:
        await stream.aclose()
    assert found == [None, {}, {}]


@pytest.mark.parametrize("size", [2, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5])
async def test_a_large_reply_goes_a_piece_at_a_time(size: int) -> None:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    body = b'"' + b"x" * (size - 2) + b'"'
    await LargeReply(body, 60.0)({"type": "http", "state": {}}, receive=None, send=send)  # type: ignore[arg-type]
    start, *parts = messages
    assert dict(start["headers"])[b"content-length"] == str(size).encode()
    assert b"".join(part["body"] for part in parts) == body
    assert max(len(part["body"]) for part in parts) <= PIECE_BYTES
    assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]


async def test_R086_who_does_not_read_a_large_reply_is_dropped() -> None:
    dropped = asyncio.Event()
    scope = {"type": "http", "state": {}, "extensions": {"engine.drop": dropped.set}}

    async def send(message: Any) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    await LargeReply(b"x" * 3 * PIECE_BYTES, 0.01)(scope, receive=None, send=send)  # type: ignore[arg-type]
    assert dropped.is_set()
    assert scope["state"] == {"outcome": "dropped"}


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "é\u2028"]}, {"a": -1e-5}])
async def test_json_is_what_it_was(value: Any) -> None:
    assert json.loads(as_json(value)) == value


async def test_half_a_character_is_a_question_mark() -> None:
    assert json.loads(as_json({"a": "x\ud83d"})) == {"a": "x?"}

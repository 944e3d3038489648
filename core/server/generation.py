"""From an engine's outputs to replies: one prompt or several, whole or as they come, counted on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ..errors import EngineError
from ..outputs import CompletionOutput, Logprob, RequestOutput
from .json_reply import as_json
from .models import ServedModel
from .sending import LargeReply
from .serving import Serving
from .settings import ServerSettings

T = TypeVar("T")
Outputs = AsyncGenerator[RequestOutput, None]
EVENT_TOKENS = 16
"""Most tokens with log-probabilities that one event of a stream brings: some ten kilobytes."""


async def watched(
    serving: Serving,
    request: Request,
    model: ServedModel,
    outputs: Outputs,
    *,
    prompt: str = "prompt",
    whole_so_far: bool = False,
) -> Outputs:
    """The outputs as they are, while what they come to is counted. Requests call the prompt `prompt`; `whole_so_far`: each output
    holds what those before it did."""
    last: RequestOutput | None = None
    tokens, reason = 0, "abort"
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                last = output
                new = sum(len(completion.token_ids) for completion in output.outputs)
                tokens = new if whole_so_far else tokens + new
                if output.finished:
                    reason = output.outputs[0].finish_reason or "stop" if output.outputs else "error"
                yield output
    except EngineError as error:
        reason = error.code
        if error.param == "prompt":
            error.param = prompt
        raise
    finally:
        if last is not None:
            serving.ended(model, last, tokens, reason)
            state = request.scope["state"]
            if last.metrics.first_token_time is not None:
                state.setdefault("first_token_seconds", last.metrics.first_token_time - last.metrics.arrival_time)
            state["prompt_tokens"] = state.get("prompt_tokens", 0) + len(last.prompt_token_ids)
            state["completion_tokens"] = state.get("completion_tokens", 0) + tokens


async def whole(outputs: Outputs) -> RequestOutput:
    """The last output."""
    last: RequestOutput | None = None
    async with contextlib.aclosing(outputs):
        async for output in outputs:
            last = output
    assert last is not None
    return last


async def reply(
    work: Awaitable[T], write: Callable[[T], dict[str, Any]], settings: ServerSettings, *, large: bool
) -> Response:
    """What work comes to, as one reply. A `large` one, of any number of log-probabilities, is written in a thread, which frees
    them as well: either takes long."""
    held = [await work]

    def written() -> bytes:
        return as_json(write(held.pop()))

    if large:
        return LargeReply(await asyncio.to_thread(written), settings.write_timeout)
    return Response(written(), media_type="application/json")


async def in_pieces(outputs: Outputs) -> Outputs:
    """Outputs of what is new, of which none brings log-probabilities of more than `EVENT_TOKENS` tokens.

    What has piled up while a client did not read reaches it as the events that it would have been, more or less. Each is little
    work, between which the loop turns; and many clients do not read an event of some megabytes: they bound its line. What a
    long prompt has brought is freed in a thread.
    """
    output: RequestOutput | None = None
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                if all(len(c.logprobs or ()) <= EVENT_TOKENS for c in output.outputs):
                    yield output
                    continue
                pieces = deque(piece for c in output.outputs for piece in _cut(c))
                output.outputs = []  # a piece is freed once it was sent, and not all of them at the end
                while pieces:
                    yield replace(output, outputs=[pieces.popleft()], finished=output.finished and not pieces)
    finally:
        if output is not None and output.prompt_logprobs is not None:
            await asyncio.to_thread(_empty, output.prompt_logprobs)


def _empty(found: list[dict[int, Logprob] | None]) -> None:
    """Free what is known of each token, one after the other: nobody waits for all of it at once."""
    for at in found:
        if at is not None:
            at.clear()


def _cut(c: CompletionOutput) -> Iterator[CompletionOutput]:
    """A completion in pieces, of which the last says how it ended. A token's own text may differ from what it adds to the text,
    so a piece's text is that of its tokens but for some characters, and the last one's is the rest."""
    logprobs, start = c.logprobs or [], 0
    for first in range(0, len(c.token_ids) - EVENT_TOKENS, EVENT_TOKENS):
        ids, found = c.token_ids[first : first + EVENT_TOKENS], logprobs[first : first + EVENT_TOKENS]
        end = start + sum(len(at[token].decoded_token) for token, at in zip(ids, found))
        yield CompletionOutput(c.index, c.text[start:end], ids, found)
        start = end
    rest = (len(c.token_ids) - 1) // EVENT_TOKENS * EVENT_TOKENS
    yield replace(c, text=c.text[start:], token_ids=c.token_ids[rest:], logprobs=logprobs[rest:])


async def all_whole(streams: Sequence[Outputs]) -> list[RequestOutput]:
    """The last outputs of several prompts, which run together; when one fails, none goes on."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(whole(stream)) for stream in streams]
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def merged(streams: Sequence[Outputs]) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """(index, output) of several prompts, in the order in which they come."""
    waiting = {asyncio.ensure_future(anext(stream, None)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                output = task.result()
                if output is not None:
                    waiting[asyncio.ensure_future(anext(streams[index], None))] = index
                    yield index, output
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()

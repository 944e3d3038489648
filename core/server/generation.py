"""From an engine's outputs to replies: one prompt or several, whole or as they come, counted on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import EngineError
from ..outputs import RequestOutput
from .models import ServedModel
from .serving import Serving

Outputs = AsyncGenerator[RequestOutput, None]


async def watched(
    serving: Serving, request: Request, model: ServedModel, outputs: Outputs, *, prompt: str = "prompt"
) -> Outputs:
    """The outputs as they are, while what they come to is counted. Requests call the prompt `prompt`."""
    last: RequestOutput | None = None
    tokens, reason = 0, "abort"
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                last = output
                tokens += sum(len(completion.token_ids) for completion in output.outputs)
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


async def reply(make: Callable[[], dict[str, Any]], *, large: bool) -> JSONResponse:
    """A reply in one piece; a `large` one, of any number of log-probabilities, is made in a thread."""
    if large:
        return await asyncio.to_thread(lambda: JSONResponse(make()))
    return JSONResponse(make())


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

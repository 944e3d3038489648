"""A call of `AsyncLLM.embed`, `classify` or `score`: its prompts beside each other, not all of a large call at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from ..errors import EngineError
from ..outputs import RequestOutput
from .calls import PoolingCall

T = TypeVar("T")
Start = Callable[[Any], AsyncGenerator[RequestOutput, None]]
"""Starts a prompt."""
AT_ONCE = 64
"""Prompts of one call that are processed, or wait for a step, at a time; others have their turn between them."""


async def answered(call: PoolingCall[T], start: Start, *, raises: bool) -> list[T]:
    """What becomes of a call.

    Args:
        call: Its prompts.
        start: See `Start`.
        raises: Whether the first failure ends all of them; otherwise it is its own result's.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(index: int, prompt: Any) -> RequestOutput:
        async with turns:
            try:
                (output,) = [output async for output in start(prompt)]
            except EngineError as error:
                if not raises:
                    return RequestOutput("", None, [], [], finished=True, error=error)
                if len(call.prompts) > 1:
                    error.message = f"prompt {index}: {error.message}"
                    error.args = (error.message,)
                raise
            return output

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index, prompt)) for index, prompt in enumerate(call.prompts)]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return call.read([task.result() for task in tasks])

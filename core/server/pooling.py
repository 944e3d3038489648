"""From calls of a model that pools to replies: answered as a whole, counted, given up when the client leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from starlette.requests import Request

from ..errors import EngineError
from ..outputs import RequestOutput
from ..pooling.calls import PoolingCall
from .models import ServedModel
from .protocol.pooling import PoolingBody
from .serving import Serving
from .sse import unless_gone

T = TypeVar("T")


async def answered(
    serving: Serving, request: Request, body: PoolingBody, model: ServedModel, call: PoolingCall[T], texts: str
) -> tuple[list[T], int]:
    """What becomes of a call, and how many tokens its prompts had.

    Args:
        serving: The server.
        request: The request.
        body: The same, read.
        model: That answers it.
        call: What it asks.
        texts: What requests call the prompts.
    """
    serving.log_prompt(request, lambda: call.prompts)
    outputs = await unless_gone(request, _outputs(serving, body, model, call, texts))
    for output in outputs:
        serving.ended(model, output, 0, "stop")
    tokens = sum(len(output.prompt_token_ids) for output in outputs)
    state = request.scope["state"]
    state["prompt_tokens"] = state.get("prompt_tokens", 0) + tokens
    return call.read(outputs), tokens


async def _outputs(
    serving: Serving, body: PoolingBody, model: ServedModel, call: PoolingCall[T], texts: str
) -> Sequence[RequestOutput]:
    plain = PoolingCall(call.prompts, call.params, list)
    try:
        return await model.engine.pool(plain, timeout=serving.timeout(body.timeout), priority=body.priority)
    except EngineError as error:
        error.param = {"prompt": texts, "truncate": "truncate_prompt_tokens"}.get(error.param or "", error.param)
        raise


def usage(tokens: int) -> dict[str, int]:
    """As OpenAI's clients know it."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}

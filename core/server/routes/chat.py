"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import InvalidRequestError
from ...outputs import CompletionOutput, RequestOutput
from ..body import route_for
from ..generation import Outputs, watched, whole
from ..media import as_messages
from ..models import ServedModel
from ..protocol.base import new_id, now, usage_of
from ..protocol.chat import ChatRequest
from ..protocol.logprobs import for_chat
from ..serving import Serving, ignored
from ..sse import EventStream, unless_gone


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/chat/completions", response_model=None)
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation."""
        model = serving.choose(request, body, "generate")
        reply = Reply(body, model)
        outputs = watched(serving, request, model, await _start(serving, request, body, model))
        if body.stream:
            return ignored(await EventStream(reply.chunks(outputs), serving.settings).begin(request), body)
        return ignored(JSONResponse(reply.whole(await unless_gone(request, whole(outputs)))), body)

    return routes


async def _start(serving: Serving, request: Request, body: ChatRequest, model: ServedModel) -> Outputs:
    """Hand the conversation to the engine."""
    messages = await as_messages(body.messages)
    serving.log_prompt(request, [{"role": m["role"], "content": m["content"]} for m in messages])
    kwargs = _template_kwargs(body)
    return model.engine.chat(
        messages,
        body.sampling_params(model.engine.default_sampling_params(), **_own_params(body)),
        request.state.request_id,
        timeout=serving.timeout(body.timeout),
        priority=body.priority,
        tools=body.tools if body.tools and body.tool_choice != "none" else None,
        **kwargs,
    )


def _own_params(body: ChatRequest) -> dict[str, Any]:
    """Sampling parameters that only this route spells so."""
    out: dict[str, Any] = {}
    given = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(given) > 1:
        raise InvalidRequestError("max_tokens and max_completion_tokens are one parameter", param="max_tokens")
    out["max_tokens"] = next(iter(given), None)
    if body.logprobs:
        out["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise InvalidRequestError("top_logprobs need logprobs=true", param="top_logprobs")
    if body.prompt_logprobs is not None:
        out["prompt_logprobs"] = body.prompt_logprobs
    return out


RESERVED_KWARGS = frozenset({
    "chat_template", "conversation", "messages", "tools", "documents", "tokenize", "padding", "truncation", "max_length",
    "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "cache_salt",
})  # fmt: skip
"""Arguments of the function that renders templates, which are not the template's."""


def _template_kwargs(body: ChatRequest) -> dict[str, Any]:
    if "chat_template" in (body.model_extra or {}):
        raise InvalidRequestError("a request brings no template of its own to this server", param="chat_template")
    kwargs = dict(body.chat_template_kwargs or {})
    reserved = sorted(RESERVED_KWARGS & set(kwargs))
    if reserved:
        raise InvalidRequestError(f"{reserved[0]!r} is not the template's", param=f"chat_template_kwargs.{reserved[0]}")
    for name in ("add_generation_prompt", "continue_final_message", "cache_salt"):
        value = getattr(body, name)
        if value is not None:
            kwargs[name] = value
    return kwargs


class Reply:
    """Makes the replies to one request.

    Args:
        body: The request.
        model: That answers it.
    """

    def __init__(self, body: ChatRequest, model: ServedModel) -> None:
        self.body, self.top = body, body.top_logprobs or 0
        self.common = {"id": new_id("chatcmpl"), "created": now(), "model": model.name}

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        """The answer in one piece."""
        generated = sum(len(c.token_ids) for c in output.outputs)
        return {
            **self.common,
            "object": "chat.completion",
            "choices": [self._choice(c) for c in output.outputs],
            "usage": usage_of([output], generated),
            "system_fingerprint": None,
        }

    def _choice(self, c: CompletionOutput) -> dict[str, Any]:
        text = c.content if c.tool_calls else c.text
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if c.tool_calls else ""),
            "refusal": None,
        }
        if c.tool_calls:
            message["tool_calls"] = [_call(call) for call in c.tool_calls]
        return {
            "index": c.index,
            "message": message,
            "logprobs": for_chat(c.token_ids, c.logprobs, self.top),
            "finish_reason": _reason(c),
            "stop_reason": c.stop_reason,
        }

    async def chunks(self, outputs: Outputs) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as it comes."""
        begun: set[int] = set()
        generated, last = 0, None
        async for output in outputs:
            last = output
            for c in output.outputs:
                generated += len(c.token_ids)
                if c.index not in begun:
                    begun.add(c.index)
                    yield self._chunk(c.index, {"role": "assistant", "content": ""})
                delta: dict[str, Any] = {"content": c.text} if c.text else {}
                yield self._chunk(c.index, delta, c)
        if self.body.wants_usage and last is not None:
            usage = usage_of([last], generated)
            yield {**self.common, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _chunk(self, index: int, delta: dict[str, Any], c: CompletionOutput | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        if c is not None:
            choice["logprobs"] = for_chat(c.token_ids, c.logprobs, self.top)
            choice["finish_reason"] = _reason(c)
        out = {**self.common, "object": "chat.completion.chunk", "choices": [choice]}
        return {**out, "usage": None} if self.body.wants_usage else out


def _reason(c: CompletionOutput) -> str | None:
    return "tool_calls" if c.tool_calls and c.finish_reason == "stop" else c.finish_reason


def _call(call: Any) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}

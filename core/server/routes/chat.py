"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...errors import InvalidRequestError
from ...outputs import CompletionOutput, RequestOutput, ToolCall
from ..body import route_for
from ..generation import Outputs, in_pieces, reply, watched, whole
from ..media import without_media
from ..models import ServedModel
from ..protocol.base import new_id, now, usage_of
from ..protocol.chat import ChatRequest
from ..protocol.logprobs import for_chat
from ..serving import Serving, ignored
from ..sse import Event, EventStream, and_last, unless_gone
from ..templates import template_kwargs
from ..tool_calls import HeldText, Said, Tools


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/chat/completions", response_model=None)
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation."""
        model = serving.choose(request, body, "generate")
        tools = Tools(body.tools, body.tool_choice, body.parallel_tool_calls, model.engine.get_tokenizer())
        maker = Reply(body, model, tools)
        outputs = watched(
            serving, request, model, await _start(serving, request, body, model, tools), prompt="messages"
        )
        if body.stream:
            chunks = maker.chunks(in_pieces(outputs))
            return ignored(await EventStream(chunks, serving.settings).begin(request), body)
        work = unless_gone(request, whole(outputs))
        return ignored(await reply(work, maker.whole, serving.settings, large=bool(body.logprobs)), body)

    return routes


async def _start(serving: Serving, request: Request, body: ChatRequest, model: ServedModel, tools: Tools) -> Outputs:
    """Hand the conversation to the engine."""
    messages, timeout = await serving.media.open(request, body.messages, model, serving.timeout(body.timeout))
    body.messages = []  # what is large in them is the prompt's alone, and is let go of with it
    serving.log_prompt(request, lambda: without_media(messages))
    kwargs = template_kwargs(body, trusted=serving.settings.trust_request_template)
    if body.cache_salt is not None:
        kwargs["cache_salt"] = body.cache_salt
    return model.engine.chat(
        messages,
        body.sampling_params(model.engine.default_sampling_params(), forced=tools.structured(), **_own_params(body)),
        request.state.request_id,
        timeout=timeout,
        priority=body.priority,
        tools=tools.declared,
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


class Reply:
    """Makes the replies to one request.

    Args:
        body: The request.
        model: That answers it.
        tools: It may ask for.
    """

    def __init__(self, body: ChatRequest, model: ServedModel, tools: Tools) -> None:
        self.body, self.top, self.tools = body, body.top_logprobs or 0, tools
        self.last: RequestOutput | None = None
        self.generated = 0
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
        said = self.tools.read(c, c.text)
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
        if said.calls:
            message |= {"content": said.text or None, "tool_calls": [_call(call) for call in said.calls]}
        return {
            "index": c.index,
            "message": message,
            "logprobs": for_chat(c.token_ids, c.logprobs, self.top),
            "finish_reason": _reason(c, said),
            "stop_reason": c.stop_reason,
        }

    def chunks(self, outputs: Outputs) -> AsyncGenerator[Event, None]:
        """The answer as it comes."""
        return and_last(self._chunks(outputs), self._usage)

    async def _chunks(self, outputs: Outputs) -> AsyncGenerator[Event, None]:
        texts: dict[int, HeldText] = {}
        async for output in outputs:
            self.last = output
            for c in output.outputs:
                self.generated += len(c.token_ids)
                if c.index not in texts:
                    texts[c.index] = HeldText(self.tools)
                    yield self._chunk(c.index, {"role": "assistant", "content": ""})
                for chunk in self._deltas(c, texts[c.index]):
                    yield chunk

    def _usage(self) -> Iterator[Event]:
        """The number of tokens, where it was asked for and is known."""
        if self.body.wants_usage and self.last is not None:
            usage = usage_of([self.last], self.generated)
            yield {**self.common, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _deltas(self, c: CompletionOutput, text: HeldText) -> Iterator[dict[str, Any]]:
        """What is new of one of the answers."""
        shown = text.add(c)
        if c.finish_reason is None:
            if shown or c.logprobs:
                yield self._chunk(c.index, {"content": shown} if shown else {}, c)
            return
        said = self.tools.read(c, text.whole) if self.tools.declared else None
        if said is not None:
            shown += text.rest(said)
            for i, call in enumerate(said.calls):
                yield self._chunk(c.index, {"tool_calls": [{"index": i, **_call(call)}]})
        yield self._chunk(c.index, {"content": shown} if shown else {}, c, _reason(c, said))

    def _chunk(
        self, index: int, delta: dict[str, Any], c: CompletionOutput | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        if c is not None:
            choice["logprobs"] = for_chat(c.token_ids, c.logprobs, self.top)
        out = {**self.common, "object": "chat.completion.chunk", "choices": [choice]}
        return {**out, "usage": None} if self.body.wants_usage else out


def _reason(c: CompletionOutput, said: Said | None) -> str | None:
    return "tool_calls" if said is not None and said.calls and c.finish_reason == "stop" else c.finish_reason


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}

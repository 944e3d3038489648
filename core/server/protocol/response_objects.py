"""`/v1/responses`: what a client gets, whole or as events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from ...outputs import CompletionOutput, RequestOutput, ToolCall
from ..generation import Outputs
from ..sse import written
from ..tool_calls import HeldText, Tools
from .base import new_id, now, usage_of
from .logprobs import for_chat
from .responses import ResponsesRequest

Event = dict[str, Any]


class ResponseMaker:
    """Makes one response.

    Args:
        body: The request.
        model: What its model is called.
        tools: It may ask for.
    """

    def __init__(self, body: ResponsesRequest, model: str, tools: Tools) -> None:
        self.body, self.tools, self.top = body, tools, body.top_logprobs
        self.message_id = new_id("msg")
        self.common: dict[str, Any] = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": now(),
            "model": model,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": _dumped(body.text.format) if body.text and body.text.format else {"type": "text"}},
            "tool_choice": _dumped(body.tool_choice) if body.tool_choice is not None else "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "user": body.user,
        }
        self._number = 0

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        """All of it."""
        c = output.outputs[0]
        said = self.tools.read(c, c.text)
        items = [self._message(said.text, c)] if said.text or not said.calls else []
        return self._ended(c, [*items, *map(_call, said.calls)], usage_of([output], len(c.token_ids)))

    async def events(self, outputs: Outputs) -> AsyncGenerator[Event | bytes, None]:
        """It as it comes."""
        begun = {**self.common, "status": "in_progress", "output": [], "usage": None}
        held, opened = HeldText(self.tools), False
        c = CompletionOutput(0, "", [], [])
        async for output in outputs:
            if not self._number:  # not before: an early error has a status of its own
                for kind in ("response.created", "response.in_progress"):
                    yield self._event(kind, response=begun)
            for new in output.outputs:
                shown, said = held.add(new), None
                if new.finish_reason is not None and self.tools.declared:
                    said = self.tools.read(new, held.whole)
                    shown += held.rest(said)
                c = _joined(c, shown, new)
                if shown:
                    for event in self._opening() if not opened else ():
                        yield event
                    opened = True
                    yield self._event("response.output_text.delta", **self._place(), delta=shown, logprobs=[])
                if c.finish_reason is not None:
                    usage = usage_of([output], len(c.token_ids))
                    closing = [self._closing(c, said.calls if said is not None else (), opened, usage)]
                    if self.top is None:
                        for event in closing.pop():
                            yield event
                    else:  # with all log-probabilities, three times
                        c = CompletionOutput(0, "", [])
                        for line in await asyncio.to_thread(_written, closing):
                            yield line

    def _opening(self) -> Iterator[Event]:
        item = {"id": self.message_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", **self._place(), part=part)

    def _closing(
        self, c: CompletionOutput, calls: Sequence[ToolCall], opened: bool, usage: dict[str, Any]
    ) -> Iterator[Event]:
        items: list[dict[str, Any]] = []
        if not opened and not calls:
            yield from self._opening()
            opened = True
        if opened:
            message = self._message(c.text, c)
            yield self._event("response.output_text.done", **self._place(), text=c.text, logprobs=[])
            yield self._event("response.content_part.done", **self._place(), part=message["content"][0])
            yield self._event("response.output_item.done", output_index=0, item=message)
            items.append(message)
        for call in map(_call, calls):
            place = {"output_index": len(items)}
            named = {**place, "item_id": call["id"]}
            arguments = call["arguments"]
            added = {**call, "arguments": "", "status": "in_progress"}
            yield self._event("response.output_item.added", **place, item=added)
            yield self._event("response.function_call_arguments.delta", **named, delta=arguments)
            yield self._event("response.function_call_arguments.done", **named, name=call["name"], arguments=arguments)
            yield self._event("response.output_item.done", **place, item=call)
            items.append(call)
        response = self._ended(c, items, usage)
        yield self._event(f"response.{response['status']}", response=response)

    def _ended(self, c: CompletionOutput, items: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        cut = c.finish_reason == "length"
        return {
            **self.common,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": now(),
            "output": items,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }

    def _message(self, text: str, c: CompletionOutput) -> dict[str, Any]:
        found = for_chat(c.token_ids, c.logprobs, self.top or 0) if self.top is not None else None
        logprobs = [] if found is None else found["content"]
        content = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
        status = "incomplete" if c.finish_reason == "length" else "completed"
        return {"id": self.message_id, "type": "message", "role": "assistant", "status": status, "content": [content]}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **values: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **values}


def _written(held: list[Iterator[Event]]) -> list[bytes]:
    """The lines of events, of which nothing is held any more."""
    return [written(event, named=True) for event in held.pop()]


def _joined(c: CompletionOutput, text: str, new: CompletionOutput) -> CompletionOutput:
    """What there is and what is new of it, with this text."""
    logprobs = [*(c.logprobs or ()), *new.logprobs] if new.logprobs is not None else None
    ids = [*c.token_ids, *new.token_ids]
    return CompletionOutput(c.index, c.text + text, ids, logprobs, finish_reason=new.finish_reason)


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _dumped(value: Any) -> Any:
    return value if isinstance(value, str) else value.model_dump(mode="json", by_alias=True, exclude_none=True)

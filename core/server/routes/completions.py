"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...errors import InvalidRequestError
from ...outputs import CompletionOutput, RequestOutput
from ..body import route_for
from ..generation import Outputs, all_whole, in_pieces, merged, reply, watched
from ..models import ServedModel, UnsupportedTaskError
from ..protocol.base import new_id, now, usage_of
from ..protocol.completions import CompletionRequest
from ..protocol.logprobs import for_completion
from ..serving import Serving, ignored
from ..sse import Event, EventStream, and_last, unless_gone, written


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/completions", response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Complete prompts as they stand."""
        model = serving.choose(request, body, "generate")
        maker = Reply(body, model)
        streams = _start(serving, request, body, model)
        if body.stream:
            chunks = maker.chunks([in_pieces(stream) for stream in streams])
            return ignored(await EventStream(chunks, serving.settings).begin(request), body)
        work = unless_gone(request, all_whole(streams))
        large = body.logprobs is not None or body.prompt_logprobs is not None
        return ignored(await reply(work, maker.whole, serving.settings, large=large), body)

    return routes


def _start(serving: Serving, request: Request, body: CompletionRequest, model: ServedModel) -> list[Outputs]:
    """Hand the prompts to the engine."""
    beside = model.engine.engine.inputs.encoder_modality
    if beside is not None:
        raise UnsupportedTaskError(
            f"{model.name!r} takes {beside} with each prompt, which a completion does not bring: use /v1/chat/completions",
            param="model",
        )
    if body.suffix:
        raise InvalidRequestError(
            "no model here fills in before a suffix", code="unsupported_parameter", param="suffix"
        )
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequestError("best_of must be n, or left out", code="unsupported_parameter", param="best_of")
    nothing_new = body.echo and body.max_tokens == 0
    own: dict[str, Any] = {"max_tokens": 1 if nothing_new else body.max_tokens, "logprobs": body.logprobs}
    own["prompt_logprobs"] = body.logprobs if body.echo and body.prompt_logprobs is None else body.prompt_logprobs
    params = body.sampling_params(model.engine.default_sampling_params(), **own)
    prompts = body.prompts()
    serving.log_prompt(request, lambda: prompts)
    name = request.state.request_id
    return [
        watched(serving, request, model, model.engine.generate(
            _as_prompt(prompt, body),
            params,
            name if len(prompts) == 1 else f"{name}-{i}",
            timeout=serving.timeout(body.timeout),
            priority=body.priority,
        ))
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip


def _as_prompt(prompt: str | list[int], body: CompletionRequest) -> dict[str, Any]:
    made: dict[str, Any] = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": prompt}
    return {**made, "cache_salt": body.cache_salt} if body.cache_salt is not None else made


class Reply:
    """Makes the replies to one request.

    Args:
        body: The request.
        model: That answers it.
    """

    def __init__(self, body: CompletionRequest, model: ServedModel) -> None:
        self.body, self.model, self.n = body, model, body.n or 1
        self.silent = body.echo and body.max_tokens == 0
        self.last: dict[int, RequestOutput] = {}
        self.generated = 0
        self.common = {"id": new_id("cmpl"), "object": "text_completion", "created": now(), "model": model.name}

    def whole(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        """All texts in one piece."""
        choices = []
        for i, output in enumerate(outputs):
            for c in output.outputs:
                choices.append(self._choice(i, output, c, first=True, offset=0))
        return {**self.common, "choices": choices, "usage": usage_of(outputs, self._count(outputs))}

    def chunks(self, streams: list[Outputs]) -> AsyncGenerator[Event, None]:
        """The texts as they come."""
        return and_last(self._chunks(streams), self._usage)

    async def _chunks(self, streams: list[Outputs]) -> AsyncGenerator[Event, None]:
        sizes: dict[tuple[int, int], int] = {}
        async for i, output in merged(streams):
            self.last[i] = output
            self.generated += self._count([output])
            for c in output.outputs:
                place = i, c.index
                first, size = place not in sizes, sizes.get(place, 0)
                make = partial(self._chunk, i, output, c, first=first, offset=size)
                event: Event
                if first and output.prompt_logprobs is not None:  # as many as the prompt is long
                    event, sizes[place] = await asyncio.to_thread(_written, make)
                else:
                    event, sizes[place] = make()
                yield event

    def _usage(self) -> Iterator[Event]:
        """The number of tokens, where it was asked for and is known."""
        if self.body.wants_usage and self.last:
            yield {**self.common, "choices": [], "usage": usage_of(list(self.last.values()), self.generated)}

    def _chunk(
        self, i: int, output: RequestOutput, c: CompletionOutput, *, first: bool, offset: int
    ) -> tuple[dict[str, Any], int]:
        """What is new of a text, and the size of the text with it."""
        choice = self._choice(i, output, c, first=first, offset=offset)
        usage = {"usage": None} if self.body.wants_usage else {}
        return {**self.common, "choices": [choice], **usage}, offset + len(choice["text"])

    def _count(self, outputs: list[RequestOutput]) -> int:
        return 0 if self.silent else sum(len(c.token_ids) for output in outputs for c in output.outputs)

    def _choice(
        self, i: int, output: RequestOutput, c: CompletionOutput, *, first: bool, offset: int
    ) -> dict[str, Any]:
        """One of a prompt's texts, or what is new of it."""
        text, ids, logprobs = ("", [], c.logprobs and []) if self.silent else (c.text, list(c.token_ids), c.logprobs)
        if self.body.echo and first:
            text = self._prompt_text(output) + text
            ids = output.prompt_token_ids + ids
            if logprobs is not None and output.prompt_logprobs is not None:
                logprobs = [*output.prompt_logprobs, *logprobs]  # type: ignore[list-item]  # None: the first has none
        reason = "length" if self.silent and c.finish_reason is not None else c.finish_reason
        choice: dict[str, Any] = {
            "index": i * self.n + c.index,
            "text": text,
            "logprobs": for_completion(ids, logprobs, self.body.logprobs or 0, offset),
            "finish_reason": reason,
            "stop_reason": c.stop_reason,
        }
        if self.body.prompt_logprobs is not None and first:
            choice["prompt_logprobs"] = _as_json(output)
        return choice

    def _prompt_text(self, output: RequestOutput) -> str:
        if output.prompt is not None:
            return output.prompt
        return str(self.model.engine.get_tokenizer().decode(output.prompt_token_ids, skip_special_tokens=False))


def _written(make: Callable[[], tuple[dict[str, Any], int]]) -> tuple[bytes, int]:
    event, size = make()
    return written(event), size


def _as_json(output: RequestOutput) -> list[dict[str, Any] | None] | None:
    """Log-probabilities of a prompt: for each token, id → its own."""
    if output.prompt_logprobs is None:
        return None
    return [
        None if found is None else {
            str(token): {"logprob": max(p.logprob, -9999.0), "rank": p.rank, "decoded_token": p.decoded_token}
            for token, p in found.items()
        }
        for found in output.prompt_logprobs
    ]  # fmt: skip

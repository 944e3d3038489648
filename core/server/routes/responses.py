"""`POST /v1/responses`: OpenAI's newer form of a chat, of which nothing is stored."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..body import route_for
from ..generation import Outputs, in_pieces, reply, watched, whole
from ..media import without_media
from ..models import ServedModel
from ..protocol.response_objects import ResponseMaker
from ..protocol.responses import ResponsesRequest
from ..serving import Serving, ignored
from ..sse import EventStream, unless_gone
from ..templates import template_kwargs
from ..tool_calls import Tools


def router(serving: Serving) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=route_for("application/json", serving.bodies))

    @routes.post("/v1/responses", response_model=None)
    async def responses(request: Request, body: ResponsesRequest) -> Response:
        """Answer a conversation."""
        body.check()
        model = serving.choose(request, body, "generate")
        tokenizer = model.engine.get_tokenizer()
        tools = Tools(body.chat_tools(), body.chat_tool_choice(), body.parallel_tool_calls, tokenizer)
        outputs = watched(serving, request, model, await _start(serving, request, body, model, tools), prompt="input")
        maker = ResponseMaker(body, model.name, tools)
        if body.stream:
            stream = EventStream(maker.events(in_pieces(outputs)), serving.settings, named=True, done=False)
            return ignored(await stream.begin(request), body)
        work = unless_gone(request, whole(outputs))
        return ignored(await reply(work, maker.whole, serving.settings, large=body.top_logprobs is not None), body)

    return routes


async def _start(
    serving: Serving, request: Request, body: ResponsesRequest, model: ServedModel, tools: Tools
) -> Outputs:
    messages, timeout = await serving.media.open(request, body.messages(), model, serving.timeout(body.timeout))
    body.input = ""  # what is large in it is the prompt's alone, and is let go of with it
    serving.log_prompt(request, lambda: without_media(messages))
    kwargs = template_kwargs(body, trusted=serving.settings.trust_request_template)
    if body.cache_salt is not None:
        kwargs["cache_salt"] = body.cache_salt
    return model.engine.chat(
        messages,
        body.sampling_params(model.engine.default_sampling_params(), forced=tools.structured()),
        request.state.request_id,
        timeout=timeout,
        priority=body.priority,
        tools=tools.declared,
        **kwargs,
    )

"""`POST /v1/audio/transcriptions` and `POST /v1/audio/translations`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...transcription.result import Transcription
from ...transcription.support import speech_class
from ...transcription.writers import FORMATS
from ..body import route_for
from ..forms import read_form
from ..generation import watched
from ..models import ServedModel
from ..protocol.audio import SpeechForm, TranscriptionForm, form_schema
from ..serving import Serving, ignored
from ..sse import EventStream, unless_gone

Task = Literal["transcribe", "translate"]


def router(serving: Serving) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=route_for("multipart/form-data", serving.bodies))

    @routes.post("/v1/audio/transcriptions", response_model=None, openapi_extra=form_schema(TranscriptionForm))
    async def transcriptions(request: Request) -> Response:
        """Turn speech into text."""
        clip, form = await read_form(request, TranscriptionForm)
        form.check()
        model = serving.choose(request, form, "transcription")
        wishes = {"timestamps": _timestamps(form, model), **_common(serving, request, form, model, "transcribe")}
        wishes["language"] = form.spoken()
        if form.stream:
            events = _events(model.engine.transcribe(clip, stream=True, **wishes))
            return ignored(await EventStream(events, serving.settings).begin(request), form)
        made = await unless_gone(request, model.engine.transcribe(clip, **wishes))
        return ignored(_rendered(made, form, form.timestamp_granularities), form)

    @routes.post("/v1/audio/translations", response_model=None, openapi_extra=form_schema(SpeechForm))
    async def translations(request: Request) -> Response:
        """Turn speech into text in another language."""
        clip, form = await read_form(request, SpeechForm)
        model = serving.choose(request, form, "transcription")
        wishes = {"timestamps": _timestamps(form, model), **_common(serving, request, form, model, "translate")}
        made = await unless_gone(request, model.engine.transcribe(clip, **wishes))
        return ignored(_rendered(made, form, None), form)

    return routes


def _common(serving: Serving, request: Request, form: SpeechForm, model: ServedModel, task: Task) -> dict[str, Any]:
    words_before = form.words_before()
    if words_before is not None:
        serving.log_prompt(request, lambda: words_before)
    return {
        "task": task,
        "language": form.language,
        "to_language": form.to_language,
        "prompt": words_before,
        "temperature": form.temperature,
        "timeout": serving.timeout(form.timeout),
        "priority": form.priority,
        "watch": partial(watched, serving, request, model, whole_so_far=True),
    }


def _timestamps(form: SpeechForm, model: ServedModel) -> str | None:
    """Those that were asked for; without, those of segments where the form of the text has them and the model can."""
    asked = getattr(form, "timestamp_granularities", None)
    if asked:
        return "word" if "word" in asked else "segment"
    if not FORMATS[form.response_format].timed and form.response_format != "verbose_json":
        return None
    speaking = speech_class(model.engine.engine.plugin)
    return "segment" if speaking is not None and speaking.supports_segment_timestamp else None


def _rendered(made: Transcription, form: SpeechForm, granularities: list[Any] | None) -> Response:
    kind = FORMATS[form.response_format]
    text = kind.write(made)
    if granularities == ["word"]:
        whole = json.loads(text)
        del whole["segments"]
        text = json.dumps(whole, ensure_ascii=False)
    return Response(text.encode(), media_type=kind.mime)


async def _events(deltas: Any) -> AsyncGenerator[dict[str, Any], None]:
    """A transcription as it comes, in OpenAI's events."""
    async with contextlib.aclosing(deltas):
        async for delta in deltas:
            if delta.text:
                yield {"type": "transcript.text.delta", "delta": delta.text}
            if delta.done is not None:
                seconds = -(-delta.done.duration // 1)
                yield {
                    "type": "transcript.text.done",
                    "text": delta.done.text,
                    "usage": {"type": "duration", "seconds": int(seconds)},
                }

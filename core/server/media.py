"""Media of a client's messages: what is theirs to send. A string is a `data:` URI or a URL, never a path of this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request

from ..errors import InvalidRequestError, MediaForbiddenError, RequestTimeoutError
from ..media.door import check_remote, fetch_media
from ..media.fetch import MediaFetcher
from ..media.source import is_remote, is_url
from .body import Held
from .embeds import read_embeds
from .fetches import Fetches
from .models import ServedModel
from .protocol.chat import (
    AudioPart,
    AudioUrlPart,
    ContentPart,
    ImageEmbedsPart,
    ImagePart,
    ImageUrl,
    MediaUrl,
    Message,
    TextPart,
)
from .settings import ServerSettings
from .sse import unless_gone

MOST_FETCHED = 16
"""Media of one request that are fetched, where its model takes any number."""
LEAST_SECONDS = 0.001
"""What an engine gets in which to find that the time is over."""


class Opened(NamedTuple):
    """A conversation as engines take it, and what is left of its time.

    Attributes:
        messages: Their media are bytes or `data:` URIs.
        timeout: Seconds that are left for the answer.
    """

    messages: list[dict[str, Any]]
    timeout: float


class MediaDoor:
    """Brings a client's messages into the form that engines take, and fetches what may be fetched.

    Attributes:
        fetches: Those that run or wait.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.fetcher = MediaFetcher(settings.allowed_media_hosts, settings.allowed_media_networks)
        self.fetches = Fetches()
        self._takes_embeds = settings.enable_mm_embeds

    async def open(self, request: Request, messages: Sequence[Message], model: ServedModel, timeout: float) -> Opened:
        """The messages, with what had to be fetched for them within `timeout` seconds.

        Raises:
            MediaError: A picture or clip comes from where none may come from, or does not come.
            OverloadedError: Too many are fetched for others, or take what memory there is for requests.
            RequestTimeoutError: They did not come in time.
            ClientDisconnect: The client has left.
        """
        made = [_message(message, f"messages.{i}") for i, message in enumerate(messages)]
        await _all(self._read(part) for message in made for part in _parts(message, "image_embeds"))
        media = [part for message in made for part in _parts(message, "image", "audio")]
        remote = [part for part in media if _is_remote(part[part["type"]])]
        if not remote:
            return Opened(made, timeout)
        _check_number(remote, model)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await unless_gone(request, self._fetch(remote, request.state.held))
        except TimeoutError:
            raise RequestTimeoutError(
                f"the request's {timeout:g} s were over before its media had come", param="timeout"
            ) from None
        return Opened(made, max(deadline - loop.time(), LEAST_SECONDS))

    async def _fetch(self, parts: Sequence[dict[str, Any]], held: Held) -> None:
        """Put what URLs name in their place; when one fails, none is fetched on."""
        await asyncio.to_thread(self._check, parts)
        self.fetches.check_room()
        try:
            await _all(self._fill(part, held) for part in parts)
        except BaseException:
            for part in parts:  # no longer counted, and not to be kept by whoever keeps the error
                part[part["type"]] = b""
            raise

    def _check(self, parts: Sequence[dict[str, Any]]) -> None:
        for part in parts:
            check_remote(self.fetcher, part["type"], part[part["type"]])

    async def _fill(self, part: dict[str, Any], held: Held) -> None:
        modality = part["type"]
        url = part[modality].strip()
        part[modality] = await self.fetches.run(lambda halt: fetch_media(self.fetcher, modality, url, halt=halt))
        held.add(len(part[modality]))

    async def _read(self, part: dict[str, Any]) -> None:
        """Embeddings of a client's, where these are taken."""
        if not self._takes_embeds:
            raise InvalidRequestError(
                "this server takes no embeddings of media, unless it was started with --enable-mm-embeds",
                code="unsupported_parameter",
                param="messages",
            )
        part["image_embeds"] = await asyncio.to_thread(read_embeds, part["image_embeds"], "messages")


def without_media(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as a log may have them: of media, how long they are."""

    def shown(part: dict[str, Any]) -> dict[str, Any]:
        kind = part["type"]
        return part if kind == "text" else {"type": kind, "length": len(part[kind])}

    contents = [(message["role"], message["content"]) for message in messages]
    return [
        {"role": role, "content": [shown(part) for part in content] if isinstance(content, list) else content}
        for role, content in contents
    ]


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; when one fails, none goes on."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _parts(message: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    content = message["content"]
    return [part for part in content if part["type"] in kinds] if isinstance(content, list) else []


def _is_remote(data: str | bytes) -> bool:
    return isinstance(data, str) and is_remote(data)


def _check_number(parts: Sequence[dict[str, Any]], model: ServedModel) -> None:
    """Refuse more than the model takes, before anything is fetched."""
    limits = {media.modality: media.limit for media in model.engine.plan.media}
    for modality in sorted({part["type"] for part in parts}):
        count = sum(part["type"] == modality for part in parts)
        limit = limits.get(modality, 0)
        most = MOST_FETCHED if limit is None else limit
        if count > most:
            code = "too_many_items" if most else "unsupported_modality"
            raise InvalidRequestError(
                f"{count} {modality} items to fetch, but this model takes {most} in a request",
                code=code,
                param="messages",
            )


def _message(message: Message, where: str) -> dict[str, Any]:
    out = {**(message.model_extra or {}), "role": message.role, "content": message.content}
    if isinstance(message.content, list):
        out["content"] = [_part(part, f"{where}.content.{j}") for j, part in enumerate(message.content)]
    for name in ("name", "tool_call_id", "tool_calls"):
        value = getattr(message, name)
        if value is not None:
            out[name] = _parsed_arguments(value) if name == "tool_calls" else value
    return out


def _part(part: ContentPart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        text = part.text if part.text is not None else part.refusal
        if text is None:
            raise InvalidRequestError("this text part has no text", param=where)
        return {"type": "text", "text": text}
    if isinstance(part, ImagePart):
        url = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url
        return {"type": "image", "image": _allowed(url, f"{where}.image_url")}
    if isinstance(part, AudioPart):
        return {"type": "audio", "audio": _clip(part.input_audio.data)}
    if isinstance(part, ImageEmbedsPart):
        return {"type": "image_embeds", "image_embeds": part.image_embeds}
    assert isinstance(part, AudioUrlPart)
    url = part.audio_url.url if isinstance(part.audio_url, MediaUrl) else part.audio_url
    return {"type": "audio", "audio": _allowed(url, f"{where}.audio_url")}


def _clip(data: str | bytes) -> str | bytes:
    """A clip in base64, as a `data:` URI; some clients send one."""
    if isinstance(data, bytes):
        return data
    return f"data:;base64,{data.partition(',')[2] if data.lstrip()[:5].lower() == 'data:' else data}"


def _allowed(url: str | bytes, where: str) -> str | bytes:
    if isinstance(url, str) and not is_url(url):
        raise MediaForbiddenError("this is no URL: send a data: URI", param=where)
    return url


def _parsed_arguments(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls of tools as templates take them: their arguments as a mapping, where these are JSON."""
    out = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            try:
                arguments = json.loads(function["arguments"])
            except (ValueError, RecursionError):
                arguments = None
            if isinstance(arguments, dict):
                call = {**call, "function": {**function, "arguments": arguments}}
        out.append(call)
    return out

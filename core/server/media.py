"""Media of a client's messages: what is theirs to send. A string is a `data:` URI or a URL, never a path of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequestError, MediaForbiddenError
from ..media.source import is_url
from .protocol.chat import AudioPart, AudioUrlPart, ContentPart, ImagePart, Message, TextPart


async def as_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the engine takes them.

    Raises:
        MediaError: A picture or clip comes from where none may come from.
    """
    return [await _message(message, f"messages.{i}") for i, message in enumerate(messages)]


async def _message(message: Message, where: str) -> dict[str, Any]:
    out = {**(message.model_extra or {}), "role": message.role}
    if isinstance(message.content, list):
        out["content"] = [await _part(part, f"{where}.content.{j}") for j, part in enumerate(message.content)]
    else:
        out["content"] = message.content
    for name in ("name", "tool_call_id", "tool_calls"):
        value = getattr(message, name)
        if value is not None:
            out[name] = value
    return out


async def _part(part: ContentPart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        text = part.text if part.text is not None else part.refusal
        if text is None:
            raise InvalidRequestError("this text part has no text", param=where)
        return {"type": "text", "text": text}
    if isinstance(part, ImagePart):
        url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return {"type": "image", "image": _allowed(url, f"{where}.image_url")}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.input_audio.data}}
    assert isinstance(part, AudioUrlPart)
    url = part.audio_url if isinstance(part.audio_url, str) else part.audio_url.url
    return {"type": "audio", "audio": _allowed(url, f"{where}.audio_url")}


def _allowed(url: str, where: str) -> str:
    if not is_url(url):
        raise MediaForbiddenError("this is no URL: send a data: URI", param=where)
    return url

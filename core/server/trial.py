"""A command that shows a server at work: it can be pasted into a shell as it stands."""

from __future__ import annotations

import json
import mimetypes
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..demos import read_example
from ..errors import InvalidRequestError
from .models import ServedModel

_BYTES = "BYTES-OF-THE-PICTURE"


def trial(models: Iterable[ServedModel], url: str, *, with_key: bool) -> str:
    """For the first model that brings an example of what to ask; where none does, for the first."""
    listed = list(models)
    model = next((m for m in listed if _has_example(m)), listed[0])
    key = ' -H "Authorization: Bearer $ENGINE_API_KEY"' if with_key else ""
    path, more = _call(model)
    return f"curl {url}{path}{key} {more}".rstrip()


def _call(model: ServedModel) -> tuple[str, str]:
    """The path, and what is sent there."""
    name, tasks = model.name, model.tasks
    chats = "generate" in tasks and model.engine.engine.inputs.chat.template is not None
    clips = _example(model, "audio")
    if "transcription" in tasks and (clips is not None or not chats):
        clip = shlex.quote(str(_path(model, clips[0][0]))) if clips is not None else "speech.wav"
        return "/v1/audio/transcriptions", f"-F model={shlex.quote(name)} -F file=@{clip}"
    if chats:
        return "/v1/chat/completions", _chat(model)
    if "generate" in tasks:
        return "/v1/completions", _sent({"model": name, "prompt": "Hello!", "max_tokens": 32})
    if "embed" in tasks:
        return "/v1/embeddings", _sent({"model": name, "input": "Hello!"})
    if "score" in tasks:
        asked = {"model": name, "query": "a fox", "documents": ["a red fox", "a blue square"]}
        return "/v1/rerank", _sent(asked)
    if "classify" in tasks:
        return "/classify", _sent({"model": name, "input": "Hello!"})
    return "/v1/models", ""


def _chat(model: ServedModel) -> str:
    """A question, about the example's picture where there is one."""
    message: dict[str, Any] = {"role": "user", "content": "Hello!"}
    said = {"model": model.name, "messages": [message], "max_tokens": 32}
    example = _example(model, "image", "questions")
    if example is None:
        return _sent(said)
    picture, (question, *_) = example
    message["content"] = [_picture(picture), {"type": "text", "text": question}]
    return _with_file(_sent(said), _path(model, picture))


def _has_example(model: ServedModel) -> bool:
    return _example(model, "image", "questions") is not None or _example(model, "audio") is not None


def _example(model: ServedModel, *names: str) -> list[Any] | None:
    try:
        return read_example(model.engine.engine.checkpoint.folder, *names)
    except InvalidRequestError:
        return None


def _path(model: ServedModel, name: str) -> Path:
    return Path(model.engine.engine.checkpoint.folder) / name


def _picture(name: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(name)[0] or "image/png"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{_BYTES}"}}


def _sent(said: object) -> str:
    """JSON between single quotes, as the body."""
    return f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(said))}"


def _with_file(command: str, path: Path) -> str:
    """The command, which reads the picture when it is run."""
    return command.replace(_BYTES, f"""'"$(base64 < {shlex.quote(str(path))} | tr -d '\\n')"'""")


__all__ = ["trial"]

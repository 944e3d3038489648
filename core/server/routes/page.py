"""`GET /`: a page to try the models with, and what it is made of. It is one with its server: nothing comes from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import mimetypes
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from ...demos import read_example
from ...errors import InvalidRequestError
from ..models import ServedModel
from ..serving import Serving

FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # Scripts and styles are this server's files, and it is the only one that they talk to; a picture or clip is the reader's own.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def _files() -> dict[str, Path]:
    """Path of a request → the file that it gets."""
    files = {f"/page/{file.name}": file for file in sorted(FOLDER.iterdir()) if file.suffix in _TYPES}
    return {"/": files.pop("/page/index.html"), **files}


FILES = _files()
"""They are for everybody, also where a key is asked for: it is the page that asks for it."""


def router(serving: Serving) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    for path, file in FILES.items():
        routes.add_api_route(path, _sender(file), methods=["GET", "HEAD"], response_model=None)

    @routes.get("/page/about")
    async def about(model: str) -> dict[str, Any]:
        """What the page has to know of a model besides its entry in `/v1/models`."""
        return await asyncio.to_thread(_about, serving.models.find(model))

    return routes


def _sender(file: Path) -> Any:
    data, mime = file.read_bytes(), _TYPES[file.suffix]

    async def send() -> Response:
        return Response(data, media_type=f"{mime}; charset=utf-8", headers=_HEADERS)

    return send


def _about(model: ServedModel) -> dict[str, Any]:
    """Whether it chats and transcribes, and what it brings to try: questions and a picture, or a clip."""
    chats = "generate" in model.tasks and model.engine.engine.inputs.chat.template is not None
    folder, example = model.engine.engine.checkpoint.folder, {}
    with contextlib.suppress(InvalidRequestError, OSError):
        if chats:
            questions, picture = read_example(folder, "questions", "image")
            example = {"questions": questions, "image": _data_uri(folder, picture)}
        else:
            (clips,) = read_example(folder, "audio")
            example = {"audio": _data_uri(folder, clips[0])}
    return {"chats": chats, "transcribes": "transcription" in model.tasks, "example": example}


def _data_uri(folder: Path, name: str) -> str:
    """A file of the folder itself: whoever made a checkpoint must not have other files of this machine sent."""
    mime = mimetypes.guess_type(name)[0] or ""
    if Path(name).name != name or not mime.startswith(("image/", "audio/")):
        raise InvalidRequestError(f"an example is a picture or clip in the model's folder, not {name!r:.60}")
    return f"data:{mime};base64,{base64.b64encode((folder / name).read_bytes()).decode()}"

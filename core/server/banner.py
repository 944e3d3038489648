"""What a person sees when the server is up: what was chosen, and a line to try it with."""

from __future__ import annotations

import json

from .. import __version__
from .models import Models, ServedModel
from .settings import ServerSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("0.0.0.0", "::")


def banner(models: Models, settings: ServerSettings, port: int) -> str:
    """The lines."""
    host = "127.0.0.1" if settings.host in _EVERYWHERE else settings.host
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [f"engine {__version__} serves {url}/v1", f"  A page to try it: {url}/", ""]
    for model in models:
        lines += [f"  {model.name}", *(f"    {name:<10} {value}" for name, value in model.engine.plan.lines()), ""]
    if not settings.api_keys:
        open_to = "this machine" if settings.host in LOOPBACK else "everybody who can reach this port"
        lines.append(f"  No key is asked for: open to {open_to}. Ask for one with --api-key.")
    lines += ["  Try:", f"    {_try(next(iter(models)), settings, url)}", ""]
    return "\n".join(lines)


def _quoted(said: object) -> str:
    """JSON, between a shell's single quotes."""
    return json.dumps(said).replace("'", "'\\''")


def _try(model: ServedModel, settings: ServerSettings, url: str) -> str:
    """A command that works as it stands."""
    key = ' -H "Authorization: Bearer $ENGINE_API_KEY"' if settings.api_keys else ""
    if "generate" in model.tasks:
        said = {"model": model.name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}
        return f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{_quoted(said)}'"
    if "transcription" in model.tasks:
        return f"curl {url}/v1/audio/transcriptions{key} -F model={model.name} -F file=@speech.wav"
    if "embed" in model.tasks:
        said = {"model": model.name, "input": "Hello!"}
        return f"curl {url}/v1/embeddings{key} -H 'Content-Type: application/json' -d '{_quoted(said)}'"
    return f"curl {url}/v1/models{key}"

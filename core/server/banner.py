"""What a person sees when the server is up: what was chosen, and a line to try it with."""

from __future__ import annotations

from .. import __version__
from .models import Models
from .settings import ServerSettings
from .trial import trial

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
    lines += ["  Try:", f"    {trial(models, url, with_key=bool(settings.api_keys))}", ""]
    return "\n".join(lines)

"""From models and options to a server that listens."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..async_llm import AsyncLLM
from ..demos import PREFIX, all_demos
from ..errors import InvalidConfigError
from ..explanation import explain
from . import logs
from .app import build_app
from .banner import banner
from .main import Host, listen
from .models import Models, ServedModel
from .settings import ServerSettings

ALL_DEMOS = PREFIX.rstrip("/")


def serve(models: Sequence[str], settings: ServerSettings, options: Mapping[str, Any]) -> int:
    """Load models and serve them until told to end; the exit code.

    Args:
        models: As `core.LLM` takes them; `demo` stands for every shipped one.
        settings: The server's options.
        options: The engines'.

    Raises:
        StartupError: A model cannot be loaded as asked, or the port is taken.
    """
    logs.set_up(settings)
    names = named(models, settings)
    listener = listen(settings)
    with contextlib.closing(listener):
        return asyncio.run(_serve(names, settings, options, listener))


async def _serve(names: Mapping[str, str], settings: ServerSettings, options: Mapping[str, Any], listener: Any) -> int:
    async with _opened(names, options) as served:
        host = Host(build_app(served, settings), settings, listener)
        print(banner(served, settings, listener.getsockname()[1]), file=sys.stderr, flush=True)
        return await host.run()


@contextlib.asynccontextmanager
async def _opened(names: Mapping[str, str], options: Mapping[str, Any]) -> AsyncIterator[Models]:
    """The models, with an engine each."""
    served: dict[str, ServedModel] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, model in names.items():
            engine = await stack.enter_async_context(await AsyncLLM.create(model, **options))
            modalities = tuple(media.modality for media in engine.plan.media if media.limit != 0)
            served[name] = ServedModel(name, engine, engine.engine.inputs.tasks, modalities)
        yield Models(served)


def named(models: Sequence[str], settings: ServerSettings) -> dict[str, str]:
    """What clients call each model → the model.

    Raises:
        InvalidConfigError: There are not as many names as models, or two are alike.
    """
    listed = [found for model in models for found in (all_demos() if model == ALL_DEMOS else [model])]
    names = settings.served_model_names or tuple(listed)
    if len(names) != len(listed):
        raise InvalidConfigError(
            f"{len(listed)} models need as many names, not {len(names)}", param="--served-model-name"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidConfigError(f"two models are called {twice!r}; name them apart", param="--served-model-name")
    return dict(zip(names, listed))


def dry_run(models: Sequence[str], settings: ServerSettings, options: Mapping[str, Any]) -> int:
    """Print what would be served, without loading anything; 1 where a model would not start."""
    refused = False
    for name, model in named(models, settings).items():
        found = explain(model, **options)
        refused |= found.refused is not None
        print(f"{name}\n" + "\n".join(f"  {title:<10} {value}" for title, value in found.lines()))
    print(f"at http://{settings.host}:{settings.port}, {'with' if settings.api_keys else 'without'} a key")
    return 1 if refused else 0

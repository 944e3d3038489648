"""From models and options to a server that listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from ..config import EngineConfig
from ..demos import PREFIX, all_demos
from ..errors import EngineDeadError, EngineError, InvalidConfigError, StartupError
from ..explanation import explain
from ..process import return_large_blocks
from . import logs, supervisor
from .app import build_app
from .banner import banner
from .client import EngineClient
from .garbage import left_alone
from .loading import LoadingBars
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
        EngineDeadError: Every engine has ended for good; this is the cause of the last one.
    """
    logs.set_up(settings)
    return_large_blocks()
    names = named(models, settings, options)
    with contextlib.closing(listen(settings)) as listener:
        return asyncio.run(_serve(names, settings, options, listener))


async def _serve(
    names: Mapping[str, str], settings: ServerSettings, options: Mapping[str, Any], listener: socket.socket
) -> int:
    told: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):  # the host has its own way with them, once it runs
        loop.add_signal_handler(number, end, number)
    try:
        return await _load_and_run(names, settings, options, listener)
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]


async def _load_and_run(
    names: Mapping[str, str], settings: ServerSettings, options: Mapping[str, Any], listener: socket.socket
) -> int:
    async with _opened(names, settings, options) as clients:
        served = Models({name: served_model(name, client) for name, client in clients.items()})
        host = Host(build_app(served, settings), settings, listener)
        lost = asyncio.create_task(_lost(list(clients.values())))
        try:
            with left_alone():
                listener.listen()  # who reads the banner may call at once
                print(banner(served, settings, listener.getsockname()[1]), file=sys.stderr, flush=True)
                code = await host.run(lost)
        finally:
            lost.cancel()
        if lost.done() and not lost.cancelled():
            raise lost.result()
        return code


@contextlib.asynccontextmanager
async def _opened(
    names: Mapping[str, str], settings: ServerSettings, options: Mapping[str, Any]
) -> AsyncIterator[dict[str, EngineClient]]:
    """An engine process for each model, loaded side by side."""
    clients: dict[str, EngineClient] = {}
    bars = LoadingBars()
    async with contextlib.AsyncExitStack() as stack:
        with bars, _silent(supervisor.logger):  # what goes wrong until it is up is raised, and said once
            for name, model in names.items():
                clients[name] = EngineClient(
                    model,
                    engine_restarts=settings.engine_restarts,
                    watchdog_timeout=settings.watchdog_timeout,
                    load_timeout=settings.load_timeout,
                    input_processes=settings.input_processes,
                    input_timeout=settings.input_timeout,
                    on_progress=bars.of(name),
                    **options,
                )
                stack.push_async_callback(clients[name].close)
            try:
                async with asyncio.TaskGroup() as group:
                    for client in clients.values():
                        group.create_task(client.ready())
            except BaseExceptionGroup as errors:
                error = errors.exceptions[0]
                raise StartupError(error.message) if isinstance(error, EngineDeadError) else error from None
        yield clients


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _lost(clients: Sequence[EngineClient]) -> EngineError:
    """Wait until all of the engines have ended for good: what one can still do is done."""
    waiting = [asyncio.ensure_future(client.ended()) for client in clients]
    try:
        for ended in asyncio.as_completed(waiting):
            cause = await ended
        assert cause is not None, "they are closed after this has been cancelled"
        return cause
    finally:
        for task in waiting:
            task.cancel()


def served_model(name: str, client: EngineClient) -> ServedModel:
    """A loaded model under its name."""
    modalities = tuple(media.modality for media in client.plan.media if media.limit != 0)
    inputs = client.engine.inputs
    if inputs.encoder_modality is None or inputs.chat.template is not None or "generate" not in inputs.tasks:
        return ServedModel(name, client, inputs.tasks, modalities)
    # Each of its prompts needs a clip or a picture beside it, and only conversations bring one.
    tasks = tuple(task for task in inputs.tasks if task != "generate")
    return ServedModel(name, client, tasks, modalities, speechless=True)


def named(models: Sequence[str], settings: ServerSettings, options: Mapping[str, Any]) -> dict[str, str]:
    """What clients call each model → the model.

    Raises:
        InvalidConfigError: An option is wrong, there are not as many names as models, or two are alike.
    """
    listed = [found for model in models for found in (all_demos() if model == ALL_DEMOS else [model])]
    names = settings.served_model_names or tuple(listed)
    if len(names) != len(listed):
        raise InvalidConfigError(
            f"{len(listed)} models need as many names, not {len(names)}", param="--served-model-name"
        )
    for model in listed:
        EngineConfig.make(model, options)  # before a port is taken and processes are started
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidConfigError(f"two models are called {twice!r}; name them apart", param="--served-model-name")
    return dict(zip(names, listed))


def dry_run(models: Sequence[str], settings: ServerSettings, options: Mapping[str, Any]) -> int:
    """Print what would be served, without loading anything; 1 where a model would not start."""
    refused = False
    for name, model in named(models, settings, options).items():
        found = explain(model, **options)
        refused |= found.refused is not None
        print(f"{name}\n" + "\n".join(f"  {title:<10} {value}" for title, value in found.lines()))
    print(f"at http://{settings.host}:{settings.port}, {'with' if settings.api_keys else 'without'} a key")
    return 1 if refused else 0

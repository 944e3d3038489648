"""`EngineClient`: `AsyncLLM`, whose engine runs in a process of its own.

Prompts are processed in further processes, texts are made in this one; what goes between them is in `wire.py`. If the engine's
dies, its requests end with an error at once, and another is started.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from sdk.spec import Capabilities

from ..async_llm import AsyncLLM
from ..errors import EngineError
from .gauges import Gauges
from .remote_engine import RemoteEngine
from .supervisor import OnProgress, State, Supervisor

RESTARTS = 2
WATCHDOG_SECONDS = 300.0
LOAD_SECONDS = 600.0
INPUT_SECONDS = 30.0
WAITING_THREADS = 32
"""Threads that wait for prompts to be processed."""


@dataclass(frozen=True)
class EngineStats:
    """An engine as it shows itself.

    Attributes:
        state: How its process is.
        restarts: How often it was replaced.
        input_restarts: How often a process was replaced that processes prompts.
        processing: Requests that the engine has not been sent yet: their prompts are being processed.
        gauges: What it told last.
    """

    state: State
    restarts: int
    input_restarts: int
    processing: int
    gauges: Gauges


class EngineClient(AsyncLLM):
    """A model in a process of its own. Returns at once; see `ready`.

    Args:
        model: As `AsyncLLM` takes it.
        engine_restarts: How often a process that has died is replaced, in all.
        watchdog_timeout: Seconds without a word from the process after which it is taken to hang.
        load_timeout: Seconds without progress after which loading is taken to hang.
        input_processes: How many processes process prompts, one at a time each; None: one for four processors.
        input_timeout: Seconds that a prompt may take there.
        on_progress: Told, in a thread, how far loading has come: (what, how many, of how many).
        options: See `core.EngineConfig`.
    """

    engine: RemoteEngine
    _thread: Supervisor

    def __init__(
        self,
        model: str,
        *,
        engine_restarts: int = RESTARTS,
        watchdog_timeout: float = WATCHDOG_SECONDS,
        load_timeout: float = LOAD_SECONDS,
        input_processes: int | None = None,
        input_timeout: float = INPUT_SECONDS,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> None:
        engine = RemoteEngine(input_processes or max(1, (os.cpu_count() or 1) // 4), input_timeout)
        supervisor = Supervisor(
            engine,
            str(model),
            options,
            restarts=engine_restarts,
            watchdog_timeout=watchdog_timeout,
            load_timeout=load_timeout,
            on_progress=on_progress,
        )
        self._open(engine, supervisor, threads=WAITING_THREADS)

    @classmethod
    async def create(cls, model: str, **options: Any) -> EngineClient:
        """Start an engine process and wait until it can serve.

        Raises:
            StartupError: The model cannot be loaded as asked; nothing stays behind.
        """
        client = cls(model, **options)
        try:
            await client.ready()
        except BaseException:
            await client.close()
            raise
        return client

    async def ready(self) -> None:
        """Wait until the engine can serve for the first time.

        Raises:
            StartupError: The model cannot be loaded as asked.
        """
        ready = asyncio.wrap_future(self._thread.ready)
        ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # also where nobody waits any more
        await asyncio.shield(ready)

    async def ended(self) -> EngineError | None:
        """Wait until there will be no engine any more: the cause, or None when it was closed."""
        return await asyncio.shield(asyncio.wrap_future(self._thread.over))

    @property
    def state(self) -> State:
        """How the process is."""
        state = self._thread.state
        return State.DRAINING if self._draining and state is State.READY else state

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.state is State.READY

    @property
    def died(self) -> EngineError | None:
        """Why there will be no engine any more; None while there is, or will be."""
        over = self._thread.over
        return over.result() if over.done() else None

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return self.engine.capabilities

    def stats(self) -> EngineStats:
        """How things stand, as the engine told after its last step."""
        processing = sum(not stream.begun for stream in list(self._streams.values()))
        pool = self.engine.pool
        return EngineStats(
            state=self.state,
            restarts=self._thread.restarts,
            input_restarts=pool.restarts if pool is not None else 0,
            processing=processing,
            gauges=self._thread.gauges,
        )

    def reset_caches(self) -> None:
        """Forget what earlier requests left. Running requests are not touched."""
        self.engine.inputs.memory.clear()
        if self.engine.pool is not None:
            self.engine.pool.reset_caches()
        self._thread.reset_caches()

"""`EngineClient`: `AsyncLLM`, whose engine runs in a process of its own.

Prompts are processed and texts are made in this process, tokens in the other; what goes between them is in `wire.py`. If the
other one dies, its requests end with an error at once, and another is started.
"""

from __future__ import annotations

import asyncio
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


@dataclass(frozen=True)
class EngineStats:
    """An engine as it shows itself.

    Attributes:
        state: How its process is.
        restarts: How often it was replaced.
        processing: Requests that the engine has not been sent yet: their prompts are being processed.
        gauges: What it told last.
    """

    state: State
    restarts: int
    processing: int
    gauges: Gauges


class EngineClient(AsyncLLM):
    """A model in a process of its own. Returns at once; see `ready`.

    Args:
        model: As `AsyncLLM` takes it.
        engine_restarts: How often a process that has died is replaced, in all.
        watchdog_timeout: Seconds without a word from the process after which it is taken to hang.
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
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> None:
        engine = RemoteEngine()
        supervisor = Supervisor(
            engine,
            str(model),
            options,
            restarts=engine_restarts,
            watchdog_timeout=watchdog_timeout,
            on_progress=on_progress,
        )
        self._open(engine, supervisor)

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
        await asyncio.shield(asyncio.wrap_future(self._thread.ready))

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
        return EngineStats(self.state, self._thread.restarts, processing, self._thread.gauges)

    def reset_caches(self) -> None:
        """Forget what earlier requests left. Running requests are not touched."""
        self.engine.inputs.memory.clear()
        self._thread.reset_caches()

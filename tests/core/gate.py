"""What tests of engines in threads need: to hold one where they want it, whatever gets the CPU when; and to share one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from core import AsyncLLM

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds after which a test has failed, on however busy a machine."""


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another thread, or another task, brings about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], Any]) -> None:
    """The same where no event loop runs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


async def begun(llm: AsyncLLM, count: int) -> None:
    """Until so many requests are with the engine: it knows of all of them before its next step but one."""
    await until(lambda: sum(stream.begun for stream in llm._streams.values()) == count)


async def settle(llm: AsyncLLM) -> None:
    """Until the thread of an engine that nothing holds has done what it was asked for, and has told of it."""
    done, send = threading.Event(), llm._thread._send
    send(lambda: send(done.set))  # a turn later: what comes of a turn is told at its end
    assert await asyncio.to_thread(done.wait, PATIENCE)


class Gate:
    """Where an engine is held before a step. Made by `hold`."""

    def __init__(self, llm: AsyncLLM, steps: int) -> None:
        self.engine = llm.engine
        self._step, self._left, self._open, self._stands = llm.engine.step, steps, False, False
        self._changed = threading.Condition()

    def step(self) -> Any:
        """In the engine's thread."""
        with self._changed:
            self._stands = True
            self._changed.wait_for(lambda: self._open or self._left > 0)
            self._stands = False
            self._left -= 1
        return self._step()

    @property
    def holds(self) -> bool:
        """Whether the engine is held: all that it did before has been told."""
        with self._changed:
            return self._stands and self._left <= 0

    def let(self, steps: int) -> None:
        """Allow it so many steps more."""
        with self._changed:
            self._left += steps
            self._changed.notify_all()

    def open(self) -> None:
        """Allow it all steps."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    async def take(self, steps: int) -> None:
        """Have an engine with work take so many steps, or all there are; then it is held again, and the event loop knows."""
        self.let(steps)
        await until(lambda: self.holds or not self.engine.scheduler.has_work)
        await asyncio.sleep(0)


@contextmanager
def hold(llm: AsyncLLM, steps: int = 0) -> Iterator[Gate]:
    """Within, an engine takes so many steps and no more, unless the gate lets it. Afterwards it is free, whatever happened."""
    gate = Gate(llm, steps)
    llm.engine.step = gate.step
    try:
        yield gate
    finally:
        gate.open()
        del llm.engine.step


class Shared(Generic[T]):
    """An engine that tests share: opened when it is first asked for, and anew after a test that left it broken or busy.

    Args:
        make: Opens one.
        end: Closes one.
    """

    def __init__(self, make: Callable[[], T], end: Callable[[T], None]) -> None:
        self._make, self._end = make, end
        self._engine: T | None = None

    def get(self) -> T:
        if self._engine is None:
            self._engine = self._make()
        return self._engine

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Around a check of what a test left behind: where it fails, the next test gets another engine."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            self._end(engine)

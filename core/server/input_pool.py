"""The processes that process prompts, as the server's threads ask them: one prompt each at a time, within a time."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from ..errors import EngineDeadError, EngineError, MediaDecodeError, RequestTimeoutError, ServerError
from . import wire
from .child import Child
from .faults import from_fault
from .line import LineClosedError

logger = logging.getLogger(__name__)
START_SECONDS = 180.0
"""For a process to import what it needs, on however busy a machine."""
DUMP_SECONDS = 1.0
"""For a process that takes too long to write down what it is doing."""


class _TimeOverError(Exception):
    """There was no answer in time."""


class _EndedError(Exception):
    """The process ended before it answered."""


class InputPool:
    """Used by any number of threads.

    Args:
        setup: What the processes need.
        count: How many there are.
        timeout: Seconds that a prompt may take.
    """

    def __init__(self, setup: wire.Setup, count: int, timeout: float) -> None:
        self.timeout, self.limits = timeout, wire.Limits(1, {}, [])
        self.restarts = 0
        self._slots = [_Slot(setup) for _ in range(count)]
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        self._closed = False
        for slot in self._slots:
            threading.Thread(target=self._warm, args=(slot,), name="engine-inputs-start", daemon=True).start()

    def _warm(self, slot: _Slot) -> None:
        try:
            slot.start()
        except EngineError as error:
            if not self._closed:
                logger.error("prompts cannot be processed: %s", error.message)
        finally:
            self._free.put(slot)

    def ask(self, ask: wire.Ask) -> wire.Made:
        """Process a prompt.

        Raises:
            EngineError: It cannot be served.
            RequestTimeoutError: It took too long; the process was ended.
            TypeError, OverflowError, ValueError: It holds what cannot be sent. Nothing has happened.
        """
        slot = self._free.get()
        try:
            if self._closed:
                raise _closed()
            answer = slot.ask(ask, self.limits, self.timeout)
        except _TimeOverError:
            logger.error("a prompt took more than %g s to process, in:\n%s", self.timeout, slot.stacks(DUMP_SECONDS))
            self._replace(slot)
            raise RequestTimeoutError(
                f"processing the prompt took more than {self.timeout:g} s", param="prompt"
            ) from None
        except _EndedError as ended:
            if self._closed:
                raise _closed() from None
            logger.error("the process that processes prompts has ended: %s\n%s", ended, slot.stacks())
            self._replace(slot)
            if _has_media(ask):
                raise MediaDecodeError(
                    f"the media broke what decodes them: {ended}", code="media_decode_failed"
                ) from None
            raise ServerError(f"processing the prompt failed: {ended}") from None
        finally:
            self._free.put(slot)
        if isinstance(answer, wire.Failed):
            raise from_fault(answer.fault)
        return answer

    def _replace(self, slot: _Slot) -> None:
        slot.end()
        self.restarts += 1

    def reset_caches(self) -> None:
        """Forget media that were processed before, as soon as each process is asked next."""
        for slot in self._slots:
            slot.forgetful = True

    def close(self) -> None:
        """End the processes; who waits for one is told."""
        self._closed = True
        for slot in self._slots:
            slot.kill()
        for _ in self._slots:
            self._free.get().end()
        for slot in self._slots:  # who still waits finds it closed
            self._free.put(slot)


class _Slot:
    """A process, or the place of one. Used by one thread at a time, but for `kill`."""

    def __init__(self, setup: wire.Setup) -> None:
        self._setup = setup
        self._child: Child | None = None
        self._limits: wire.Limits | None = None
        self.forgetful = self._closed = False

    def start(self) -> Child:
        """The process, started where there is none.

        Raises:
            EngineError: It cannot be started.
        """
        if self._child is not None and not self._child.has_ended():
            return self._child
        self.end()
        self._child = child = Child("input_process", wire.FromInputs)
        try:
            if self._closed:
                raise _EndedError("it is not wanted any more")
            self._answer(START_SECONDS)
            child.line.send(self._setup)
            answer = self._answer(START_SECONDS)
        except (_TimeOverError, _EndedError, LineClosedError) as error:
            stacks = child.stacks()
            self.end()
            raise ServerError(f"what processes prompts could not be started: {error}\n{stacks}".rstrip()) from None
        if isinstance(answer, wire.Died):
            self.end()
            raise from_fault(answer.fault)
        return child

    def ask(self, ask: wire.Ask, limits: wire.Limits, timeout: float) -> wire.Made | wire.Failed:
        """Have a prompt processed."""
        child = self.start()
        try:
            if limits is not self._limits:
                child.line.send(limits)
                self._limits = limits
            if self.forgetful:
                child.line.send(wire.ResetCaches())
                self.forgetful = False
            child.line.send(ask)
        except LineClosedError:
            raise _EndedError(child.how_it_ended()) from None
        answer: wire.Made | wire.Failed = self._answer(timeout)
        return answer

    def _answer(self, timeout: float) -> Any:
        child = self._child
        assert child is not None
        poller, until = zmq.Poller(), time.monotonic() + timeout
        poller.register(child.line.socket, zmq.POLLIN)
        poller.register(child.lifeline, zmq.POLLIN)
        while time.monotonic() < until:
            poller.poll(int((until - time.monotonic()) * 1000) + 1)
            ended = child.has_ended()
            if (message := child.line.receive(0)) is not None:
                return message
            if ended:
                raise _EndedError(child.how_it_ended())
        raise _TimeOverError(f"no answer within {timeout:g} s")

    def stacks(self, patience: float = 0.0) -> str:
        """See `Child.stacks`."""
        return self._child.stacks(patience) if self._child is not None else ""

    def kill(self) -> None:
        """End the process by force, for good; who waits for its answer hears of it."""
        self._closed = True
        child = self._child
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process."""
        child, self._child, self._limits = self._child, None, None
        if child is not None:
            child.end()


def _closed() -> EngineDeadError:
    return EngineDeadError("the engine has stopped: it was closed")


def _has_media(ask: wire.Ask) -> bool:
    if not ask.is_chat:
        return isinstance(ask.value, Mapping) and bool(
            ask.value.get("multi_modal_data") or ask.value.get("encoder_prompt")
        )
    contents = [message.get("content") for message in ask.value if isinstance(message, Mapping)]
    return any(
        isinstance(part, Mapping) and not str(part.get("type", "")).endswith("text")
        for content in contents
        if isinstance(content, Sequence) and not isinstance(content, str)
        for part in content
    )


__all__ = ["InputPool"]

"""Watches over an engine process: starts it, carries messages, finds it dead or hanging, and starts another in its place."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

import msgspec
import zmq

from ..engine_thread import Listener
from ..errors import EngineDeadError, EngineError, ServerError, StartupError
from ..request import Request
from . import wire
from .bell import Bell
from .child import Child
from .faults import from_fault
from .gauges import Gauges, Levels, Totals
from .hang import within
from .line import LineClosedError
from .remote_engine import RemoteEngine
from .sequences import Sequences

logger = logging.getLogger(__name__)
OnProgress = Callable[[str, int, int | None], None]
DUMP_SECONDS = 2.0
"""For a hanging process to write down what it is doing."""
CLOSE_SECONDS = 5.0
"""For a process that was told to end."""


class State(StrEnum):
    """How an engine process is."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    DEAD = "dead"


class Supervisor:
    """A thread, which all that goes to the engine process and comes from it passes. See `core.served.Stepper`.

    Args:
        engine: What is known of the engine here.
        model, options: What to run.
        restarts: How often a process that has died may be replaced, in all.
        watchdog_timeout: Seconds without a word after which a process is taken to hang.
        load_timeout: The same, while it loads the model.
        on_progress: Told, in the thread, how far loading has come.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        model: str,
        options: Mapping[str, Any],
        *,
        restarts: int,
        watchdog_timeout: float,
        load_timeout: float,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.engine, self.restarts_left = engine, restarts
        self.watchdog_timeout, self.load_timeout = watchdog_timeout, load_timeout
        self.state = State.LOADING
        self.restarts = 0
        self.ready: Future[None] = Future()
        """Done when the engine can serve for the first time, or cannot be started."""
        self.over: Future[EngineError | None] = Future()
        """Done when there will be no engine any more: the cause, None when it was closed."""
        self.pid: int | None = None
        self._model, self._options, self._on_progress = model, options, on_progress
        self._setup: wire.Setup | None = None
        self._sequences = Sequences(engine)
        self._commands: deque[Callable[[], None]] = deque()
        self._bell, self._lock = Bell(), threading.Lock()
        self._closing = self._ended = False
        self._child: Child | None = None
        self._cause: EngineError | None = None
        self._heard = 0.0
        self._gauges, self._before = Gauges(), Totals()
        # A daemon, so that a program that forgets to close ends nevertheless; and with it the process.
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._thread.start()

    # ---- for everybody ----------------------------------------------------------------------------------------------

    @property
    def gauges(self) -> Gauges:
        """What the engine told last; its totals with those of the processes before it."""
        last = self._gauges
        return Gauges(last.levels, self._before.plus(last.totals), last.last_step_seconds)

    def submit(self, listener: Listener) -> None:
        """Send a listener's job."""
        deadline = None
        if listener.deadline is not None:
            deadline = time.monotonic() + listener.deadline - listener.loop.time()
        self._do(lambda: self._submit(listener, deadline))

    def abort(self, requests: Sequence[Request]) -> None:
        """End sequences wherever they are, before the next step."""
        self._do(lambda: self._send_about(requests, wire.Abort))

    def stop(self, request: Request, stop_string: str) -> None:
        """End a sequence at a stop string that was found in its text, before the next step."""
        self._do(lambda: self._send_about([request], lambda keys: wire.Stop(keys[0], stop_string)))

    def reset_caches(self) -> None:
        """Forget what earlier requests left."""
        self._do(lambda: self._send(wire.ResetCaches()))

    def close(self) -> None:
        """End the process; what is still under way ends with `EngineDeadError`. Safe to call more than once."""
        self._closing = True
        self._bell.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _do(self, command: Callable[[], None]) -> None:
        with self._lock:
            self._commands.append(command)
            ended = self._ended
        if ended:  # nobody waits for the bell any more
            self._obey()
        else:
            self._bell.ring()

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        cause: EngineError | None = None
        try:
            while (cause := self._live()) is not None and self._may_restart:
                self.restarts_left, self.restarts = self.restarts_left - 1, self.restarts + 1
                logger.error("the engine has stopped: %s; starting it again", cause.message)
                self._lose(State.RESTARTING, cause)
        except BaseException as error:
            logger.exception("the engine's supervisor failed")
            cause = EngineDeadError(f"its supervisor failed: {type(error).__name__}: {error}")
        if cause is not None:
            logger.error("the engine has stopped for good: %s", cause.message)
        self._lose(State.DEAD, cause or EngineDeadError("it was closed"))
        self.engine.close()
        with self._lock:
            self._ended = True
        self._obey()
        if not self.ready.done():
            self.ready.set_exception(cause or self.engine.stopped())
        self.over.set_result(cause)

    @property
    def _may_restart(self) -> bool:
        """Whether another process is tried. One that never could serve would say the same again."""
        return self.restarts_left > 0 and self.ready.done() and not self._closing

    def _live(self) -> EngineError | None:
        """One process from its start to its end; why it ended, None where it was told to."""
        self._cause = None
        try:
            self._child = child = Child("engine_process", wire.FromEngine)
        except StartupError as error:
            return error
        self.pid = child.pid
        try:
            if self._setup is None:  # while the process imports what it needs
                find = functools.partial(self.engine.find, self._model, self._options)
                self._setup = within(self.load_timeout, find, unless=lambda: self._closing)
                self._setup.heartbeat = min(1.0, self.watchdog_timeout / 4)
            return self._watch(child)
        except EngineError as error:
            return error
        finally:
            self._child, self.pid = None, None
            child.end(CLOSE_SECONDS if self._closing else 0.0)

    def _lose(self, state: State, cause: EngineError) -> None:
        """The process has ended."""
        self.state = state
        self.engine.lost(cause, for_good=state is State.DEAD)
        self._before = self.gauges.totals
        self._gauges = Gauges(Levels())
        self._sequences.fail(self.engine.stopped)
        self._sequences.wake()

    def _watch(self, child: Child) -> EngineError | None:
        """Carry messages until the process ends, hangs, or is told to end."""
        poller = zmq.Poller()
        for source in (child.line.socket, child.lifeline, self._bell):
            poller.register(source, zmq.POLLIN)
        self._heard = time.monotonic()
        patience = int(min(1.0, self.watchdog_timeout / 4) * 1000)
        while True:
            poller.poll(patience)
            ended = child.has_ended()  # before its last words are read: none follow then
            self._bell.silence()
            while (message := child.line.receive(0)) is not None:
                self._read(message, child)
            if ended:
                return self._cause or EngineDeadError(child.how_it_ended() + _indented(child.stacks()))
            self._obey()
            for key in self._sequences.wake():
                self._send(wire.Abort([key]))
            if self._closing:
                self._send(wire.Close())
                return None
            silence = time.monotonic() - self._heard
            if self.state is State.READY and silence > self.watchdog_timeout:
                stacks = child.stacks(DUMP_SECONDS)
                logger.error("the engine has not been heard of for %.0f s; it was doing this:\n%s", silence, stacks)
                return EngineDeadError(f"it has not been heard of for {self.watchdog_timeout:g} s: a step hangs")
            if self.state is not State.READY and silence > self.load_timeout:
                stacks = _indented(child.stacks(DUMP_SECONDS))
                return StartupError(f"loading the model has not come on for {self.load_timeout:g} s:{stacks}")

    def _read(self, message: Any, child: Child) -> None:
        self._heard = time.monotonic()
        if isinstance(message, wire.News):
            self._gauges = message.gauges
            self._sequences.told(message)
        elif isinstance(message, wire.Refused):
            self._sequences.refused(message)
        elif isinstance(message, wire.Hello):
            self._send(self._setup)
        elif isinstance(message, wire.Progress):
            if self._on_progress is not None:
                self._on_progress(message.what, message.done, message.total)
        elif isinstance(message, wire.Loaded):
            self._gauges = message.gauges
            self.engine.loaded(message)
            self.state = State.READY
            if not self.ready.done():
                self.ready.set_result(None)
        elif isinstance(message, wire.Died):
            self._cause = from_fault(message.fault)
            if self.state is State.READY:
                self.state = State.RESTARTING if self._may_restart else State.DEAD
                self.engine.lost(self._cause, for_good=not self._may_restart)

    def _obey(self) -> None:
        while self._commands:
            try:
                command = self._commands.popleft()
            except IndexError:  # another thread took it, after the end
                return
            command()
        if self._ended:
            self._sequences.wake()

    # ---- commands ---------------------------------------------------------------------------------------------------

    def _submit(self, listener: Listener, deadline: float | None) -> None:
        if self.engine.dead is not None:
            self._sequences.refuse(listener, self.engine.stopped())
            return
        try:
            letter = self._sequences.add(listener, None if deadline is None else deadline - time.monotonic())
            self._send(letter)
        except EngineError as error:
            self._sequences.refuse(listener, error)
        except (TypeError, OverflowError, msgspec.MsgspecError) as error:
            self._sequences.refuse(listener, ServerError(f"the request cannot be sent to the engine: {error}"))

    def _send_about(self, requests: Sequence[Request], message: Callable[[list[int]], Any]) -> None:
        keys = self._sequences.keys(requests)
        if keys:
            self._send(message(keys))

    def _send(self, message: Any) -> None:
        if self._child is not None:
            try:
                self._child.line.send(message)
            except LineClosedError:  # it has ended, which is about to be found
                logger.debug("a message came too late for the engine")


def _indented(stacks: str) -> str:
    return "\n" + "\n".join(f"    {line}" for line in stacks.splitlines()) if stacks else ""

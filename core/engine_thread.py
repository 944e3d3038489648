"""The engine in a thread of its own: others send it requests, aborts and stops; it steps, and tells listeners what is new.

Nobody else touches the engine meanwhile. What listeners are told are numbers that are final: how many tokens a sequence
has after a whole step. They read the tokens themselves, when they like, so that nothing is queued however slowly they read.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .engine import Engine
from .errors import EngineDeadError, EngineError
from .jobs import Job
from .kernels.choice import prepare_thread
from .request import Request

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Somebody who waits for a job."""

    job: Job
    loop: asyncio.AbstractEventLoop
    deadline: float | None
    """By the loop's clock."""

    def tell(self, index: int, num_tokens: int, *, finished: bool) -> bool:
        """In the engine's thread, after a step: sequence `index` has so many tokens, and whether these are all.

        Returns:
            Whether `wake` is wanted.
        """

    def refuse(self, error: EngineError) -> None:
        """In the engine's thread: the job was never begun. `wake` follows."""

    def wake(self) -> None:
        """In the listener's own loop, once for all that was said since."""


class Mailbox:
    """Wakes the listeners of one event loop: one call into the loop a step, and none while one is under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._listeners: dict[int, Listener] = {}

    def post(self, listeners: Iterable[Listener]) -> None:
        """Have these listeners woken.

        Raises:
            RuntimeError: The loop has been closed.
        """
        with self._lock:
            under_way = bool(self._listeners)
            self._listeners.update((id(listener), listener) for listener in listeners)
        if not under_way or self.loop.is_closed():  # what was under way to a loop that was closed does not come
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.wake()


Mailboxes = dict[asyncio.AbstractEventLoop, Mailbox]


def mailbox_of(loop: asyncio.AbstractEventLoop, known: Mailboxes) -> Mailbox:
    """A loop's mailbox; where it is new, those of loops that have been closed are forgotten."""
    if loop not in known:
        for closed in [other for other in known if other.is_closed()]:
            del known[closed]
        known[loop] = Mailbox(loop)
    return known[loop]


class EngineThread:
    """Steps an engine while there is work; sleeps while there is none.

    Args:
        engine: From now on this thread's own.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = self._closed = False
        self._waiting: dict[str, tuple[Listener, int]] = {}
        self._changed: dict[str, Request] = {}
        self._refused: list[Listener] = []
        self._mailboxes: Mailboxes = {}
        # A daemon, so that a program that forgets to close ends nevertheless.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- for everybody ----------------------------------------------------------------------------------------------

    def submit(self, listener: Listener) -> None:
        """Queue the sequences of a listener's job."""
        self._send(lambda: self._add(listener))

    def abort(self, requests: Sequence[Request]) -> None:
        """End sequences wherever they are, before the next step."""
        self._send(lambda: self._abort(requests))

    def stop(self, request: Request, stop_string: str) -> None:
        """End a sequence at a stop string that was found in its text, before the next step."""
        self._send(lambda: self._stop(request, stop_string))

    def close(self) -> None:
        """End the thread and the engine; what still waits ends with `EngineDeadError`. Safe to call more than once."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _send(self, command: Callable[[], None]) -> None:
        with self._wake:
            if self._closed:  # nobody steps any more, so nobody is in the way
                command()
                self._publish()
            else:
                self._commands.append(command)
                self._wake.notify()

    # ---- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        prepare_thread()
        try:
            while self._turn():
                pass
        except BaseException as error:  # whatever it is, those who wait must hear of it
            logger.exception("the engine's thread failed")
            self.engine.die(EngineDeadError(f"its thread failed: {type(error).__name__}: {error}"))
        with self._wake:
            self._closed = True
            self.engine.close()
            while self._commands:
                self._commands.popleft()()
            self._publish(everything=True)

    def _turn(self) -> bool:
        """Do what was asked for, then a step, then tell; False when it is time to go."""
        with self._wake:
            self._wake.wait_for(lambda: self._commands or self._closing or self._has_work)
            commands, self._commands = self._commands, deque()
            closing = self._closing
        for command in commands:
            command()
        if self._has_work and not closing:
            self._step()
        self._publish(everything=self.engine.dead is not None)
        return not closing

    @property
    def _has_work(self) -> bool:
        return self.engine.dead is None and self.engine.scheduler.has_work

    def _step(self) -> None:
        try:
            self._note(self.engine.step())
        except EngineError as error:  # the engine has ended its requests, unless the fault is in our own book-keeping
            if self.engine.dead is None:
                self.engine.die(error)

    def _add(self, listener: Listener) -> None:
        requests = listener.job.requests
        try:
            for request in requests:
                self.engine.add(request)
        except EngineError as error:
            self.engine.abort([r.request_id for r in requests])
            listener.refuse(error)
            self._refused.append(listener)
            return
        for index, request in enumerate(requests):
            self._waiting[request.request_id] = (listener, index)

    def _abort(self, requests: Sequence[Request]) -> None:
        self.engine.abort([r.request_id for r in requests])
        self._note(requests)

    def _stop(self, request: Request, stop_string: str) -> None:
        if not request.finished:
            self.engine.stop(request, stop_string)
            self._note([request])

    def _note(self, requests: Iterable[Request]) -> None:
        self._changed.update((r.request_id, r) for r in requests)

    def _publish(self, *, everything: bool = False) -> None:
        """Tell the listeners what their sequences have come to."""
        if everything:
            self._note(listener.job.requests[index] for listener, index in self._waiting.values())
        news: dict[asyncio.AbstractEventLoop, list[Listener]] = {}
        for listener in self._refused:
            news.setdefault(listener.loop, []).append(listener)
        for request_id, request in self._changed.items():
            if request_id not in self._waiting:
                continue
            listener, index = self._waiting[request_id]
            if request.finished:
                del self._waiting[request_id]
            if listener.tell(index, len(request.token_ids), finished=request.finished):
                news.setdefault(listener.loop, []).append(listener)
        self._changed, self._refused = {}, []
        for loop, listeners in news.items():
            try:
                mailbox_of(loop, self._mailboxes).post(listeners)
            except RuntimeError:  # the loop was closed: nobody will read any of this
                self._forget(loop)

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        gone = [r for listener, _ in self._waiting.values() if listener.loop is loop for r in listener.job.requests]
        self.engine.abort([request.request_id for request in gone])
        for request in gone:
            self._waiting.pop(request.request_id, None)
        del self._mailboxes[loop]

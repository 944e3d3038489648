"""The sequences that an engine process computes, on this side: what is told of them is written into their requests, and those
who wait for them are woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from ..engine_thread import Listener, Mailboxes, mailbox_of
from ..errors import EngineError
from ..request import Request, Status
from . import wire
from .faults import from_fault
from .letters import read_candidates, read_end, write_job
from .remote_engine import RemoteEngine


class Sequences:
    """Used by one thread.

    Args:
        engine: Whose.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self.engine = engine
        self._held: dict[int, tuple[Listener, int]] = {}
        self._keys: dict[str, int] = {}
        self._next_key = 0
        self._news: dict[int, Listener] = {}
        self._mailboxes: Mailboxes = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, listener: Listener, remaining: float | None) -> wire.Add:
        """Take a listener's job.

        Returns:
            What to send.

        Raises:
            EngineError: It cannot be sent.
        """
        requests, key = listener.job.requests, self._next_key
        letter = write_job(key, listener.job, remaining)
        self._next_key += len(requests)
        for index, request in enumerate(requests):
            self._held[key + index], self._keys[request.request_id] = (listener, index), key + index
        return letter

    def keys(self, requests: Iterable[Request]) -> list[int]:
        """The numbers of those of these requests that are still under way."""
        return [self._keys[r.request_id] for r in requests if r.request_id in self._keys]

    def refuse(self, listener: Listener, error: EngineError) -> None:
        """Tell a listener that its job is not begun."""
        for key in self.keys(listener.job.requests):
            self._forget(key)
        listener.refuse(error)
        self._news[id(listener)] = listener

    def refused(self, message: wire.Refused) -> None:
        """The engine did not begin a job."""
        if message.key in self._held:
            self.refuse(self._held[message.key][0], from_fault(message.fault))

    def told(self, news: wire.News) -> None:
        """Book what a step has brought."""
        counts: dict[int, bool] = {}
        for key, tokens in news.tokens:
            if key in self._held:
                listener, index = self._held[key]
                listener.job.requests[index].token_ids += tokens
                counts[key] = False
        for detail in news.details:
            if detail.key in self._held:
                listener, index = self._held[detail.key]
                counts[detail.key] = self._book(detail, listener.job.requests[index])
        for key, finished in counts.items():
            self._tell(key, finished=finished)

    def _book(self, detail: wire.Detail, request: Request) -> bool:
        """Write down all but the tokens; returns whether these are all."""
        text = self.engine.inputs.token_text
        if detail.started is not None:
            request.metrics.first_scheduled_time, request.num_cached = detail.started
        if detail.logprobs:
            request.logprobs += read_candidates(detail.logprobs, text)
        if detail.prompt_logprobs:
            request.prompt_logprobs += read_candidates(detail.prompt_logprobs, text)
        if detail.end is None:
            return False
        read_end(detail.end, request)
        request.status = Status.FINISHED
        return True

    def _tell(self, key: int, *, finished: bool) -> None:
        listener, index = self._held[key]
        if finished:
            self._forget(key)
        if listener.tell(index, len(listener.job.requests[index].token_ids), finished=finished):
            self._news[id(listener)] = listener

    def _forget(self, key: int) -> None:
        listener, index = self._held.pop(key)
        del self._keys[listener.job.requests[index].request_id]

    def fail(self, error: Callable[[], EngineError]) -> None:
        """End all of them, each with an error of its own."""
        for key, (listener, index) in list(self._held.items()):
            request = listener.job.requests[index]
            request.finish_reason, request.error = "error", error()
            request.metrics.finished_time = time.monotonic()
            request.status = Status.FINISHED
            self._tell(key, finished=True)

    def wake(self) -> list[int]:
        """Wake those who wait for what was told.

        Returns:
            Sequences that nobody waits for any more, since their event loop has been closed: to be aborted.
        """
        by_loop: dict[asyncio.AbstractEventLoop, list[Listener]] = {}
        for listener in self._news.values():
            by_loop.setdefault(listener.loop, []).append(listener)
        self._news = {}
        gone: list[int] = []
        for loop, listeners in by_loop.items():
            try:
                mailbox_of(loop, self._mailboxes).post(listeners)
            except RuntimeError:  # closed
                del self._mailboxes[loop]
                gone += [key for key, (listener, _) in self._held.items() if listener.loop is loop]
        for key in gone:
            self._forget(key)
        return gone


__all__ = ["Sequences"]

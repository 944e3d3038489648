"""One request of `AsyncLLM`, as its reader sees it: between the engine's thread and an event loop.

Nothing is queued: the thread leaves the number of tokens that each sequence has, and the reader makes outputs of what has come
since it looked last. However slowly it reads, all that waits for it is the sequence itself.
"""

from __future__ import annotations

import asyncio
import math
from numbers import Real
from typing import Any

from .errors import EngineError, InvalidRequestError, RequestTimeoutError, shown
from .jobs import Job
from .outputs import RequestOutput, RequestOutputKind
from .served import Stepper

TEXT_TOKENS = 64
"""Of a sequence whose end alone is wanted, text is made whenever it has so many tokens more: its end is little work then."""
TURN_TOKENS = 128
"""Of so many tokens, text is made without a look at what else the event loop has to do: they take less than a millisecond."""


def checked_timeout(timeout: Any) -> float | None:
    """Seconds to wait; what is no time to wait is refused."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise InvalidRequestError(f"timeout must be a number or None, not {shown(timeout)}", param="timeout")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = -math.inf if timeout < 0 else math.inf
    if not seconds > 0:
        raise InvalidRequestError(f"timeout must be above 0, not {shown(timeout)}", param="timeout")
    return seconds


def check_request_id(request_id: Any) -> None:
    """Refuse what is no name for a request."""
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequestError(f"request_id must be a string or None, not {shown(request_id)}", param="request_id")


class Stream:
    """Made and read in one event loop.

    Args:
        name: What the caller knows the request by.
        job_id: What the engine knows it by.
        kind: What comes; None: all so far.
        thread: The engine.
        timeout: Seconds until its deadline; None: it has none.
    """

    job: Job

    def __init__(
        self, name: str, job_id: str, kind: RequestOutputKind | None, thread: Stepper, timeout: float | None
    ) -> None:
        self.name, self.job_id, self.thread, self.timeout = name, job_id, thread, timeout
        self.kind = RequestOutputKind.CUMULATIVE if kind is None else kind
        self.loop = asyncio.get_running_loop()
        self.deadline = None if timeout is None else self.loop.time() + timeout
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._begun = self._aborted = self._expired = self._over = False
        self._told: list[tuple[int, bool]] = []
        self._read: list[int] = []
        self._error: EngineError | None = None

    @property
    def begun(self) -> bool:
        """Whether the engine has been sent its job: its prompt has been processed."""
        return self._begun

    @property
    def is_queued(self) -> bool:
        """Whether none of its sequences has taken part in a step."""
        return not self._begun or all(r.metrics.first_scheduled_time is None for r in self.job.requests)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of its prompt while that waits in the engine."""
        return len(self.job.output.prompt_token_ids) if self._begun and self.is_queued else 0

    # ---- for its reader ---------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Hand the job to the engine, unless it was aborted while its prompt was processed."""
        self.job, self._begun = job, True
        self._told = [(request.prompt_len, False) for request in job.requests]
        self._read = [request.prompt_len for request in job.requests]
        job.output.request_id = self.name
        if self._aborted:
            job.abandon()
            self._news.set()
            return
        if self.deadline is not None:
            self._timer = self.loop.call_at(self.deadline, self._expire)
        self.thread.submit(self)

    async def next(self) -> RequestOutput | None:
        """Wait for the next output; None after the last.

        Raises:
            EngineError: What ended the request, once all outputs before it have been read.
        """
        while not self._over and self._error is None:
            await self._news.wait()
            self._news.clear()
            await self._catch_up()
            output = self.job.take(self.kind)
            if self.job.output.finished:
                self._over, self._error = True, self._failure()
            elif self._expired:
                self._error = self.timed_out()
            if output is not None:
                return output
        if self._error is not None:
            raise self._error
        return None

    def abort(self) -> None:
        """End the request; what it has so far is its last output."""
        if self._begun:
            self.thread.abort(self.job.requests)
        self._aborted = True

    def close(self) -> None:
        """Nobody reads any more: what still runs is aborted."""
        if self._timer is not None:
            self._timer.cancel()
        if self._begun and not self.job.output.finished:
            self.thread.abort(self.job.requests)

    def timed_out(self) -> RequestTimeoutError:
        """What to raise when the deadline has passed."""
        if not self._begun:
            where = "while its prompt was processed"
        elif self.is_queued:
            where = "while it waited for its turn"
        else:
            where = f"after {sum(len(text.ids) for text in self.job.texts)} tokens"
        error = RequestTimeoutError(f"the request's {self.timeout:g} s were over {where}", param="timeout")
        error.partial_results = [self.job.whole()] if self._begun else []
        return error

    # ---- for the engine's thread ------------------------------------------------------------------------------------

    def tell(self, index: int, num_tokens: int, *, finished: bool) -> bool:
        """See `Listener.tell`."""
        self._told[index] = (num_tokens, finished)
        if finished or self.kind is not RequestOutputKind.FINAL_ONLY or self.job.params.stops:
            return True
        return (num_tokens - self.job.requests[index].prompt_len) % TEXT_TOKENS == 0

    def refuse(self, error: EngineError) -> None:
        """See `Listener.refuse`."""
        self._error = error

    def wake(self) -> None:
        """See `Listener.wake`."""
        self._news.set()
        if self.job.params.stops:
            for index, (num_tokens, _) in enumerate(self._told):
                self._advance(index, num_tokens)  # now: a stop string ends the sequence also where the reader sleeps

    # ---- within -----------------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Make text of the tokens that have come; where they are many, the loop turns in between."""
        room = TURN_TOKENS
        for index in range(len(self._told)):
            room -= self._advance(index, room)
            while not room:
                await asyncio.sleep(0)
                room = TURN_TOKENS - self._advance(index, TURN_TOKENS)

    def _advance(self, index: int, most: int) -> int:
        """Make text of at most so many of a sequence's new tokens; of how many it was."""
        (told, finished), read = self._told[index], self._read[index]
        self._read[index] = upto = min(told, read + most)
        hit = self.job.advance(index, upto, finished=finished and upto == told)
        if hit is not None:
            self.thread.stop(self.job.requests[index], hit)
        return upto - read

    def _expire(self) -> None:
        self._expired = True
        self._news.set()

    def _failure(self) -> EngineError | None:
        """What ended the request, where that was an error."""
        error, engine = self.job.output.error, self.thread.engine
        if error is not None and error is engine.dead:
            error = engine.stopped()
        if error is not None:
            error.partial_results = [self.job.output]
        return error

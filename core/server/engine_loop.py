"""The engine process's loop: takes commands, steps, and tells what the sequences have come to, in one message a step."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zmq

from ..engine import Engine
from ..errors import EngineDeadError, EngineError, GrammarError, RequestTimeoutError, ServerError
from ..grammar.compiler import SECONDS
from ..inputs import ProcessedInput
from ..jobs import Job, JobMaker
from ..kernels.choice import prepare_thread
from ..request import Request
from ..sampling import SamplingParams
from . import wire
from .bell import Bell
from .deadlines import Deadlines
from .faults import to_fault
from .garbage import left_alone
from .gauges import Gauges, Meter
from .letters import read_job, write_candidates, write_end
from .line import Line

logger = logging.getLogger(__name__)
MAX_COMPILING = 2
"""Jobs whose grammars are compiled at a time."""


class _Sequence:
    """A sequence, and how much of it has been told."""

    __slots__ = ("key", "logprobs_told", "prompt_told", "request", "started", "told")

    def __init__(self, key: int, request: Request) -> None:
        self.key, self.request = key, request
        self.told, self.logprobs_told, self.prompt_told, self.started = request.prompt_len, 0, 0, False


class EngineLoop:
    """Runs an engine for who is at the other end of a line.

    Args:
        engine: Loaded.
        line: To the server.
        heartbeat: Seconds of silence after which it says that it is well.
    """

    def __init__(self, engine: Engine, line: Line, heartbeat: float) -> None:
        self.engine, self.line, self.heartbeat = engine, line, heartbeat
        self._maker, self._meter = JobMaker(engine), Meter(engine)
        self._sequences: dict[int, _Sequence] = {}
        self._keys: dict[str, int] = {}
        self._unstarted: dict[int, _Sequence] = {}
        self._changed: dict[int, _Sequence] = {}
        self._deadlines = Deadlines()
        self._compilers = ThreadPoolExecutor(MAX_COMPILING, "engine-grammars")
        self._compiling: dict[int, bool] = {}
        """Sequences whose job is being made → whether they were ended meanwhile."""
        self._compiled: deque[tuple[wire.Add, Job | EngineError]] = deque()
        self._bell, self._poller = Bell(), zmq.Poller()
        self._poller.register(line.socket, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        self._closing = False
        self._last_news = 0.0

    def gauges(self) -> Gauges:
        """How things stand."""
        return self._meter.read()

    def run(self) -> bool:
        """Until it is told to end, or cannot go on: whether it was told to."""
        prepare_thread()
        try:
            with left_alone():
                while not self._closing and self.engine.dead is None:
                    self._tell()
                    self._hear()
                    if self._busy and not self._closing:
                        self._step()
        except BaseException as error:  # whatever it is, those who wait must hear of it
            logger.exception("the engine's loop failed")
            self.engine.die(EngineDeadError(f"its loop failed: {type(error).__name__}: {error}"))
        if self.engine.dead is not None:  # first: who hears of its request's end must find the engine gone
            self.line.send(wire.Died(to_fault(self.engine.dead)))
        self._changed.update(self._sequences)
        self._tell()
        self._compilers.shutdown(wait=False, cancel_futures=True)
        self.engine.rules.close()
        return self.engine.dead is None

    @property
    def _busy(self) -> bool:
        return self.engine.dead is None and self.engine.scheduler.has_work

    # ---- commands ---------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Do what was asked for; with nothing to step, wait for it."""
        patience = min(self._last_news + self.heartbeat, self._deadlines.next()) - time.monotonic()
        self._poller.poll(0 if self._busy else max(0, int(patience * 1000) + 1))
        self._bell.silence()
        while (command := self.line.receive(0)) is not None:
            self._obey(command)
        while self._compiled:
            self._begin(*self._compiled.popleft())
        self._end_late_ones()

    def _obey(self, command: Any) -> None:
        if isinstance(command, wire.Add):
            self._take(command)
        elif isinstance(command, wire.Abort):
            self._abort(command.keys)
        elif isinstance(command, wire.Stop):
            sequence = self._sequences.get(command.key)
            if sequence is not None and not sequence.request.finished:
                self.engine.stop(sequence.request, command.stop_string)
                self._changed[command.key] = sequence
        elif isinstance(command, wire.ResetCaches):
            self.engine.reset_caches()
        elif isinstance(command, wire.Close):
            self._closing = True

    def _take(self, add: wire.Add) -> None:
        """A job: begun at once, unless it asks for what takes time to make."""
        try:
            made, params = read_job(add)
        except Exception as error:
            self._begin(add, _as_error(error))
            return
        if params.structured_outputs is None and not params.bad_words:
            self._begin(add, self._make(add, made, params))
            return

        asked = time.monotonic()

        def compile_and_ring() -> None:
            if params.structured_outputs is not None and time.monotonic() - asked > SECONDS:
                answer: Job | EngineError = GrammarError(
                    f"structured_outputs: no compiler was free within {SECONDS:g} s; try again later",
                    code="grammar_timeout",
                    param="sampling_params.structured_outputs",
                )
            else:
                answer = self._make(add, made, params)
            self._compiled.append((add, answer))
            self._bell.ring()

        self._compiling.update((add.key + i, False) for i in range(params.n))
        self._compilers.submit(compile_and_ring)

    def _make(self, add: wire.Add, made: ProcessedInput, params: SamplingParams) -> Job | EngineError:
        try:
            return self._maker.make(add.job_id, made, params, add.priority)
        except Exception as error:
            return _as_error(error)

    def _begin(self, add: wire.Add, made: Job | EngineError) -> None:
        """Queue the sequences of a job, or say why not."""
        requests = made.requests if isinstance(made, Job) else []
        keys = range(add.key, add.key + add.params.get("n", 1))
        ended = [key for key in keys if self._compiling.pop(key, False)]
        try:
            if isinstance(made, EngineError):
                raise made
            for request in requests:
                self.engine.add(request)
        except EngineError as error:
            self.engine.abort([request.request_id for request in requests])
            self.line.send(wire.Refused(add.key, to_fault(error)))
            return
        for key, request in zip(keys, requests):
            self._sequences[key] = self._unstarted[key] = _Sequence(key, request)
            self._keys[request.request_id] = key
            if add.remaining is not None:
                self._deadlines.add(time.monotonic() + add.remaining, key)
        self._abort(ended)

    def _abort(self, keys: Iterable[int]) -> None:
        """End sequences, with what they have."""
        for key in keys:
            if key in self._compiling:
                self._compiling[key] = True
            elif key in self._sequences:
                self._changed[key] = sequence = self._sequences[key]
                self.engine.abort([sequence.request.request_id])

    def _end_late_ones(self) -> None:
        """End sequences whose deadline has passed. Their server does as much; this holds where it has no time to."""
        for key in self._deadlines.over(time.monotonic()):
            sequence = self._sequences.get(key)
            if sequence is not None and not sequence.request.finished:
                self._abort([key])
                sequence.request.finish_reason = "error"
                sequence.request.error = RequestTimeoutError("the request's time was over", param="timeout")

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        start = time.perf_counter()
        try:
            changed = self.engine.step()
        except EngineError as error:  # the engine has ended its requests, unless the fault is in our own book-keeping
            if self.engine.dead is None:
                self.engine.die(error)
            return
        for request in changed:
            key = self._keys[request.request_id]
            self._changed[key] = self._sequences[key]
        for sequence in list(self._unstarted.values()):
            if sequence.request.metrics.first_scheduled_time is not None:
                del self._unstarted[sequence.key]
                self._changed[sequence.key] = sequence
                self._meter.begun(sequence.request)
        self._meter.stepped(time.perf_counter() - start, sum(request.pooling is None for request in changed))

    # ---- news -------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Say what is new; after a silence, that nothing is."""
        now = time.monotonic()
        if not self._changed and now < self._last_news + self.heartbeat:
            return
        tokens, details = [], []
        for sequence in self._changed.values():
            request = sequence.request
            new = request.token_ids[sequence.told :]
            if new:
                sequence.told += len(new)
                tokens.append((sequence.key, new))
            detail = self._detail(sequence)
            if detail is not None:
                details.append(detail)
            if request.finished:
                self._forget(sequence)
        self._changed = {}
        self._last_news = now
        self.line.send(wire.News(tokens, details, self.gauges()))

    def _detail(self, sequence: _Sequence) -> wire.Detail | None:
        """What there is to say of a sequence besides its tokens; for most, in most steps, nothing."""
        request = sequence.request
        if sequence.started and not request.finished and not request.logprobs and not request.prompt_logprobs:
            return None
        detail = wire.Detail(sequence.key)
        first = request.metrics.first_scheduled_time
        if not sequence.started and first is not None:
            sequence.started = True
            detail.started = first, request.num_cached
        if request.logprobs:
            detail.logprobs = write_candidates(request.logprobs[sequence.logprobs_told :])
            sequence.logprobs_told = len(request.logprobs)
        if request.prompt_logprobs:
            detail.prompt_logprobs = write_candidates(request.prompt_logprobs[sequence.prompt_told :])
            sequence.prompt_told = len(request.prompt_logprobs)
        if request.finished:
            if request.error is not None and request.error is self.engine.dead:
                request.error = self.engine.stopped()
            detail.end = write_end(request)
        return detail

    def _forget(self, sequence: _Sequence) -> None:
        del self._sequences[sequence.key], self._keys[sequence.request.request_id]
        self._unstarted.pop(sequence.key, None)


def _as_error(error: Exception) -> EngineError:
    """What to tell who sent a request that could not be made."""
    if isinstance(error, EngineError):
        return error
    logger.error("a request could not be made", exc_info=error)
    return ServerError(f"the request could not be made: {type(error).__name__}")


__all__ = ["EngineLoop"]

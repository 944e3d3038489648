"""Runs jobs by stepping the engine from the thread that asks. What `LLM` and its transcriber share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from .engine import Engine
from .errors import EngineDeadError, EngineError
from .inputs import ProcessedInput
from .jobs import Job, JobMaker, of_requests
from .outputs import RequestOutput
from .progress import ProgressMeter
from .sampling import SamplingParams

OnError = Literal["raise", "return"]
Process = Callable[[], ProcessedInput]


class JobRunner:
    """The jobs of one engine.

    Args:
        engine: Stepped by whoever iterates over `run`.

    Attributes:
        jobs: Those that run, by the ids of their outputs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.maker = JobMaker(engine)
        self.jobs: dict[str, Job] = {}

    def make(
        self,
        inputs: Sequence[Process],
        params: Sequence[SamplingParams],
        on_error: OnError,
        priorities: Sequence[int] | None = None,
    ) -> list[Job]:
        """Process every prompt, and so check it, before anything is started.

        Args:
            inputs: Each processes a prompt.
            params: How each is completed.
            on_error: `raise` the first failure, or `return` a job that has ended with it.
            priorities: Of each; the lower, the earlier its turn.
        """
        jobs = []
        for index, (process, p, priority) in enumerate(zip(inputs, params, priorities or [0] * len(inputs))):
            job_id = self.maker.next_id()
            try:
                jobs.append(self.maker.make(job_id, process(), p, priority))
            except EngineError as e:
                if on_error == "raise":
                    if len(inputs) > 1:
                        e.message = f"prompt {index}: {e.message}"
                        e.args = (e.message,)
                    raise
                jobs.append(Job(RequestOutput(job_id, None, [], [], finished=True, error=e), p))
        return jobs

    def run(self, jobs: Sequence[Job], on_error: OnError, *, stream: bool) -> Iterator[Job]:
        """Run jobs together; yields each one when it has something new. Whatever happens, nothing stays behind.

        Args:
            jobs: From `make`.
            on_error: `raise` the first failure, with what had finished in its `partial_results`, or go on.
            stream: Whether somebody looks at texts as they come; else a job is yielded when a sequence of it has ended.
        """
        owner = of_requests(jobs)
        failure: EngineError | None = None
        try:
            for job in jobs:
                self._start(job, on_error)
            yield from (j for j in jobs if not j.requests)
            while any(not j.output.finished for j in jobs):
                changed = self._step(jobs, owner, stream)
                for job in changed:
                    failure = failure or job.output.error
                    yield job
                if failure is not None and on_error == "raise":
                    raise failure
        except EngineError as e:
            e.partial_results = [j.output for j in jobs if j.output.finished and j.output.error is None]
            raise
        finally:
            self.engine.abort(owner)
            for job in jobs:
                self.jobs.pop(job.output.request_id, None)

    def finish(self, jobs: Sequence[Job], on_error: OnError, *, show_progress: bool) -> list[RequestOutput]:
        """Run jobs to their ends, with a progress bar if wanted."""
        meter = ProgressMeter(len(jobs), quiet=not show_progress or self.engine.config.disable_progress)
        try:
            for job in self.run(jobs, on_error, stream=False):
                if job.ended:
                    meter.done(sum(r.output_len for r in job.requests))
        finally:
            meter.close()
        return [job.output for job in jobs]

    def abort(self, request_ids: Iterable[str]) -> None:
        """End jobs; what they have so far is their output, with `finish_reason="abort"`."""
        for name in request_ids:
            job = self.jobs.get(name)
            if job is not None:
                self.engine.abort(r.request_id for r in job.requests)

    # ---- the parts --------------------------------------------------------------------------------------------------

    def _start(self, job: Job, on_error: OnError) -> None:
        self.jobs[job.output.request_id] = job
        try:
            for request in job.requests:
                self.engine.add(request)
        except EngineError as e:
            if on_error == "raise" or isinstance(e, EngineDeadError):
                raise
            self.engine.abort(r.request_id for r in job.requests)
            job.fail(e)

    def _step(self, jobs: Sequence[Job], owner: Mapping[str, tuple[Job, int]], stream: bool) -> list[Job]:
        """One step of the engine; the jobs of ours that it changed, brought up to date."""
        changed: dict[int, Job] = {}
        for request in self.engine.step() if self.engine.scheduler.has_work else ():
            if request.request_id not in owner:
                continue
            job, index = owner[request.request_id]
            if stream or job.params.stops or request.finished:  # text is made as it comes only where somebody looks
                self._update(job, index)
                changed[id(job)] = job
        for job in jobs:  # ended between our steps: aborted, or by another thread's step
            for index, request in enumerate(job.requests):
                if request.finished and job.ends[index] is None:
                    self._update(job, index)
                    changed[id(job)] = job
        return list(changed.values())

    def _update(self, job: Job, index: int) -> None:
        """Bring a sequence's text up to date; a stop string ends it."""
        request = job.requests[index]
        finished = request.finished  # first: another thread's step may be adding tokens
        hit = job.advance(index, len(request.token_ids), finished=finished)
        if hit is not None:
            self.engine.stop(request, hit)

"""Continuous batching: which tokens of which sequences are computed in the next step.

The unit is *tokens to compute for a sequence now*. A prompt, a chunk of one, a decoded token and the recomputation after a
preemption are the same case: the sequence has more tokens than computed ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .cache.pages import PagePool
from .request import Request, Status


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One sequence's part of a step.

    Attributes:
        request: The sequence.
        start, count: Its tokens `start … start + count - 1` are computed.
        encode: Indices of media items to encode first.
    """

    request: Request
    start: int
    count: int
    encode: tuple[int, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether the step reaches the last known token, so that a next one is sampled."""
        return self.start + self.count == len(self.request.token_ids)


StepPlan = list[Scheduled]


class Scheduler:
    """Keeps waiting and running sequences and plans steps.

    Args:
        pool: The pages.
        max_num_seqs: Most sequences in a step.
        max_num_batched_tokens: Most tokens in a step.
        max_encoder_tokens: Most rows of embeddings encoded in a step; a single larger item still passes, alone.
    """

    def __init__(self, pool: PagePool, max_num_seqs: int, max_num_batched_tokens: int, max_encoder_tokens: int) -> None:
        self.pool = pool
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.max_encoder_tokens = max_encoder_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is unfinished."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a sequence."""
        self.waiting.append(request)

    def schedule(self) -> StepPlan:
        """Plan the next step: running sequences first, oldest first, then waiting ones while tokens and pages last."""
        plan: StepPlan = []
        budget, encoder_budget = self.max_num_batched_tokens, self.max_encoder_tokens
        index, preemptions = 0, self.num_preemptions
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            start = request.num_computed
            count = min(len(request.token_ids) - start, budget)
            count, encode, used = self._fit_encoder(request, start, count, encoder_budget)
            index += 1
            if count == 0:
                continue
            if not self._secure_pages(request, start + count):
                break  # it was preempted itself, and with it every younger one
            plan.append(Scheduled(request, start, count, encode))
            budget, encoder_budget = budget - count, encoder_budget - used
        # Who has just lost its pages would only take them back, so nobody is admitted in such a step.
        while self.waiting and budget > 0 and self._free_slots and self.num_preemptions == preemptions:
            request = self.waiting[0]
            count = min(len(request.token_ids), budget)
            count, encode, used = self._fit_encoder(request, 0, count, encoder_budget)
            pages = self.pool.take(self.pool.pages_for(count)) if count else None
            if pages is None:
                break
            self.waiting.popleft()
            self._start(request, pages)
            plan.append(Scheduled(request, 0, count, encode))
            budget, encoder_budget = budget - count, encoder_budget - used
        return plan

    def _start(self, request: Request, pages: list[int]) -> None:
        request.status, request.pages, request.slot = Status.RUNNING, pages, self._free_slots.pop()
        if request.metrics.first_scheduled_time is None:
            request.metrics.first_scheduled_time = time.monotonic()
        self.running.append(request)

    def _secure_pages(self, request: Request, num_tokens: int) -> bool:
        """Get the pages for `num_tokens`, taking them from the youngest sequences when there are none; False when the
        sequence had to give up its own."""
        missing = self.pool.pages_for(num_tokens) - len(request.pages)
        if missing <= 0:
            return True
        while (pages := self.pool.take(missing)) is None:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        request.pages += pages
        return True

    def _preempt(self, request: Request) -> None:
        """Take a sequence's pages; it waits, first in line, to be computed anew."""
        self._leave(request)
        request.status, request.num_computed = Status.WAITING, 0
        request.encoded.clear()
        request.metrics.preemptions += 1
        self.num_preemptions += 1
        self.waiting.appendleft(request)

    def _leave(self, request: Request) -> None:
        self.running.remove(request)
        self.pool.release(request.pages)
        self._free_slots.append(request.slot)
        request.pages, request.slot = [], -1

    def _fit_encoder(self, request: Request, start: int, count: int, budget: int) -> tuple[int, tuple[int, ...], int]:
        """Cut a chunk short before the first media item that the step's encoder budget does not cover."""
        encode: list[int] = []
        used = 0
        if request.items and start < request.prompt_len:
            for i in request.items_between(start, start + count):
                if i in request.encoded:
                    continue
                rows = request.items[i].placeholder.num_embeds
                whole_budget = budget == self.max_encoder_tokens and not encode
                if used + rows > budget and not whole_budget:
                    count = max(0, request.items[i].placeholder.offset - start)
                    break
                encode.append(i)
                used += rows
        return count, tuple(encode), used

    def finish(self, requests: Iterable[Request]) -> None:
        """Let sequences go, wherever they are, and free what they held."""
        for request in requests:
            if request.status is Status.RUNNING:
                self._leave(request)
            elif request.status is Status.WAITING:
                self.waiting.remove(request)
            request.status = Status.FINISHED
            request.encoded.clear()

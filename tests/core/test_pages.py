"""The page pool and the scheduler under everything that can happen to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.cache.pages import PagePool
from core.errors import EngineDeadError
from core.request import Request, Status
from core.sampling import SamplingParams
from core.scheduler import Scheduled, Scheduler
from sdk.multimodal import PlaceholderRange, ProcessedItem


def test_pages_are_taken_shared_and_released() -> None:
    pool = PagePool(4, 16)
    assert (pool.pages_for(0), pool.pages_for(1), pool.pages_for(16), pool.pages_for(17)) == (0, 1, 1, 2)
    first = pool.take(3)
    assert first is not None
    assert 0 not in first
    assert pool.take(2) is None
    assert pool.num_free == 1
    pool.share(first[:1])
    pool.release(first)
    assert pool.num_free == 3
    pool.release(first[:1])
    assert pool.num_free == 4
    with pytest.raises(EngineDeadError, match="nobody holds it"):
        pool.release(first[:1])
    with pytest.raises(EngineDeadError, match="nobody holds it"):
        pool.share(first[:1])


class PoolMachine(RuleBasedStateMachine):
    """Any order of taking, sharing and releasing against a model that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(12, 4)
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, 14))
    def take(self, count: int) -> None:
        free = self.pool.num_free
        pages = self.pool.take(count)
        if count > free:
            assert pages is None
            assert self.pool.num_free == free
        else:
            assert pages is not None
            assert not {p for h in self.held for p in h} & set(pages), "a page was given twice"
            assert len(set(pages)) == count
            self.held.append(pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        pages = list(data.draw(st.sampled_from(self.held)))
        self.pool.share(pages)
        self.held.append(pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def nothing_leaks(self) -> None:
        assert self.pool.num_free == 12 - len({p for h in self.held for p in h})


def place(request: Request, item: int) -> tuple[int, int]:
    """Where an item begins, and how many tokens it takes."""
    found = request.items[item].placeholder
    return found.offset, found.length


class SchedulerMachine(RuleBasedStateMachine):
    """R079: random arrivals with and without media, steps, ends and aborts in a pool that is too small for all of them."""

    PAGES, SIZE, SEQS, BUDGET, ENCODER = 10, 4, 3, 9, 7

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(self.PAGES, self.SIZE)
        self.scheduler = Scheduler(self.pool, self.SEQS, self.BUDGET, self.ENCODER)
        self.alive: list[Request] = []
        self.number = 0

    @rule(
        prompt=st.integers(1, 24),
        output=st.integers(1, 12),
        media=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=3),
    )
    def arrive(self, prompt: int, output: int, media: list[tuple[int, int]]) -> None:
        self.number += 1
        items, at = [], 0
        for gap, length in media:
            if at + gap + length <= prompt:
                mask = np.arange(length) % 3 != 1  # some tokens of an item take no embedding
                items.append(ProcessedItem({}, PlaceholderRange("image", len(items), at + gap, length, mask)))
                at += gap + length
        request = Request(
            request_id=str(self.number),
            token_ids=list(range(prompt)),
            prompt_len=prompt,
            params=SamplingParams(),
            max_tokens=output,
            eos_token_ids=frozenset(),
            seed=0,
            items=items,
        )
        self.scheduler.add(request)
        self.alive.append(request)

    @rule()
    def step(self) -> None:
        plan = self.scheduler.schedule()
        assert bool(plan) == bool(self.alive), "there is work but nobody goes on"
        assert sum(s.count for s in plan) <= self.BUDGET
        rows = [s.request.items[i].placeholder.num_embeds for s in plan for i in s.encode]
        assert sum(rows) <= self.ENCODER or len(rows) == 1
        if plan:
            oldest = min(self.alive, key=lambda r: int(r.request_id))
            assert plan[0].request is oldest, "whoever came first goes on in every step"
        assert len({s.request.slot for s in plan}) == len(plan) <= self.SEQS
        for s in plan:
            assert s.count > 0
            assert s.start == s.request.num_computed
            assert len(s.request.pages) * self.SIZE >= s.start + s.count
            self.encode(s)
            s.request.num_computed = s.start + s.count
            if s.samples or s.request.num_computed == len(s.request.token_ids):
                s.request.token_ids.append(0)
                if s.request.output_len >= s.request.max_tokens:
                    self.end(s.request)

    def encode(self, s: Scheduled) -> None:
        """As the runner and the engine do; an item that is needed is there, and is not encoded twice."""
        encoded: dict[int, Any] = s.request.encoded
        assert not encoded.keys() & set(s.encode)
        encoded.update(dict.fromkeys(s.encode))
        needed = set(s.request.items_between(s.start, s.start + s.count))
        assert set(s.encode) <= needed <= encoded.keys()
        for i in [i for i in encoded if s.start + s.count >= sum(place(s.request, i))]:
            del encoded[i]

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.alive)))

    def end(self, request: Request) -> None:
        self.scheduler.finish([request])
        self.alive.remove(request)

    @invariant()
    def pages_belong_to_the_running(self) -> None:
        held = [p for r in self.alive for p in r.pages]
        assert len(held) == len(set(held))
        assert self.pool.num_free == self.PAGES - len(held)
        assert all(bool(r.pages) <= (r.status is Status.RUNNING) for r in self.alive)

    def teardown(self) -> None:
        for _ in range(2000):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "somebody starves"
        assert self.pool.num_free == self.PAGES
        assert not self.scheduler.has_work


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
SchedulerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
TestSchedulerR079 = SchedulerMachine.TestCase

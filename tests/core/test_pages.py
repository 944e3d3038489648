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
    """R079: random arrivals with and without media, steps, ends and aborts in a pool that is too small for all of them.

    The machine writes down what every slot of every page holds: whoever is said to have computed tokens finds exactly these.
    """

    PAGES, SIZE, SEQS, BUDGET, ENCODER = 10, 4, 3, 9, 7
    CACHING, CHUNKING, PRIORITIES = False, "any", 1

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(self.PAGES, self.SIZE)
        self.scheduler = Scheduler(
            self.pool, self.SEQS, self.BUDGET, self.ENCODER, prefix_caching=self.CACHING, chunking=self.CHUNKING
        )
        self.alive: list[Request] = []
        self.contents: dict[tuple[int, int], object] = {}
        self.number = 0

    @rule(
        prompt=st.integers(1, 24),
        output=st.integers(1, 12),
        media=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9), st.sampled_from([b"", b"a", b"b"])), max_size=3),
        differs=st.integers(0, 30),
        salt=st.sampled_from([b"", b"salt"]),
        priority=st.integers(0, 2),
    )
    def arrive(
        self, prompt: int, output: int, media: list[tuple[int, int, bytes]], differs: int, salt: bytes, priority: int
    ) -> None:
        self.number += 1
        items, at = [], 0
        for gap, length, key in media:
            if at + gap + length <= prompt:
                mask = np.arange(length) % 3 != 1  # some tokens of an item take no embedding
                place = PlaceholderRange("image", len(items), at + gap, length, mask)
                items.append(
                    ProcessedItem({}, place, None, key and key + bytes([length]))
                )  # equal items are equally long
                at += gap + length
        request = Request(
            request_id=str(self.number),
            token_ids=[-1 if i == differs else i for i in range(prompt)],
            prompt_len=prompt,
            params=SamplingParams(),
            max_tokens=output,
            eos_token_ids=frozenset(),
            seed=0,
            items=items,
            cache_salt=salt,
            priority=priority % self.PRIORITIES,
        )
        self.scheduler.add(request)
        self.alive.append(request)

    @rule()
    def step(self) -> None:
        plan = self.scheduler.schedule()
        assert bool(plan) == bool(self.alive), "there is work but nobody goes on"
        if self.CHUNKING == "any":
            assert sum(s.count for s in plan) <= self.BUDGET
            assert sum(self.rows(plan)) <= self.ENCODER or len(self.rows(plan)) == 1
        if plan and not self.CACHING:
            oldest = min(self.alive, key=lambda r: int(r.request_id))
            assert plan[0].request is oldest, "whoever came first goes on in every step"
        assert len({s.request.slot for s in plan}) == len(plan) <= self.SEQS
        for s in plan:
            assert s.count > 0
            assert s.start == s.request.num_computed
            assert len(s.request.pages) * self.SIZE >= s.start + s.count
            self.check_whole(s)
            self.encode(s)
            for at in range(s.start):
                assert self.contents[self.slot(s.request, at)] == self.wanted(s.request, at)
        for s in plan:
            for at in range(s.start, s.start + s.count):
                self.contents[self.slot(s.request, at)] = self.wanted(s.request, at)
        for s in plan:
            self.scheduler.computed(s)
            if s.samples or s.request.num_computed == len(s.request.token_ids):
                s.request.token_ids.append(s.request.output_len % 3)
                if s.request.output_len >= s.request.max_tokens:
                    self.end(s.request)

    def slot(self, request: Request, at: int) -> tuple[int, int]:
        return request.pages[at // self.SIZE], at % self.SIZE

    def wanted(self, request: Request, at: int) -> object:
        """What the key and value at a place depend on."""
        seen = [request.items[i] for i in request.items_between(0, at + 1)]
        media = tuple((i.key or request.request_id, i.placeholder.offset) for i in seen)
        return request.cache_salt, tuple(request.token_ids[: at + 1]), media

    def rows(self, plan: list[Scheduled]) -> list[int]:
        """Rows of embeddings that a plan encodes; equal items are encoded once."""
        found: dict[object, int] = {}
        for s in plan:
            for i in s.encode:
                item = s.request.items[i]
                found[item.key or (s.request.request_id, i)] = item.placeholder.num_embeds
        return list(found.values())

    def check_whole(self, s: Scheduled) -> None:
        """What may not be cut is not cut."""
        stop = s.start + s.count
        if self.CHUNKING == "no":
            assert s.start >= s.request.prompt_len or stop >= s.request.prompt_len > s.start == 0
        elif self.CHUNKING == "item-atomic":
            for i in range(len(s.request.items)):
                offset, length = place(s.request, i)
                assert not offset < s.start < offset + length
                assert not offset < stop < offset + length

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

    @rule()
    def forget(self) -> None:
        self.pool.forget()

    def end(self, request: Request) -> None:
        self.scheduler.finish([request])
        self.alive.remove(request)

    @invariant()
    def pages_belong_to_the_running(self) -> None:
        held = [p for r in self.alive for p in r.pages]
        if not self.CACHING:
            assert len(held) == len(set(held))
        assert self.pool.num_free == self.PAGES - len(set(held))
        assert all(bool(r.pages) <= (r.status is Status.RUNNING) for r in self.alive)

    def teardown(self) -> None:
        for _ in range(2000):
            if not self.alive:
                break
            self.step()
        assert not self.alive, "somebody starves"
        assert self.pool.num_free == self.PAGES
        assert not self.scheduler.has_work


class CachingMachine(SchedulerMachine):
    """The same, with pages shared by equal beginnings."""

    CACHING = True


class AtomicMachine(SchedulerMachine):
    """The same, for a model whose media items attend within themselves in both directions."""

    CACHING, CHUNKING = True, "item-atomic"


class WholeMachine(SchedulerMachine):
    """The same, for a model whose prompts may not be cut."""

    CHUNKING = "no"


class PriorityMachine(SchedulerMachine):
    """The same, with requests of several priorities."""

    CACHING, PRIORITIES = True, 3


for machine in (PoolMachine, SchedulerMachine, CachingMachine, AtomicMachine, WholeMachine, PriorityMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
TestSchedulerR079 = SchedulerMachine.TestCase
TestSchedulerR079Caching = CachingMachine.TestCase
TestSchedulerR079Atomic = AtomicMachine.TestCase
TestSchedulerR079Whole = WholeMachine.TestCase
TestSchedulerR079Priority = PriorityMachine.TestCase


def waiting(prompt: int, **fields: Any) -> Request:
    """A request of so many tokens, none of them another's."""
    start = fields.pop("first", 0)
    return Request("r", list(range(start, start + prompt)), prompt, SamplingParams(), 8, frozenset(), 0, **fields)


def test_R084_a_long_prompt_leaves_room_for_short_ones() -> None:
    scheduler = Scheduler(PagePool(1000, 16), 64, 128, 128)
    long, short = waiting(4000), [waiting(20) for _ in range(10)]
    scheduler.add(long)
    (first,) = scheduler.schedule()
    assert first.count == 128, "alone, it has the whole step"
    scheduler.computed(first)
    for r in short:
        scheduler.add(r)
    started: set[int] = set()
    for _ in range(4):
        plan = scheduler.schedule()
        assert plan[0].request is long
        assert plan[0].count >= 32
        for s in plan:
            scheduler.computed(s)
            if s.samples:
                s.request.token_ids.append(0)
        started |= {id(s.request) for s in plan}
    assert started == {id(r) for r in (long, *short)}


def test_a_better_priority_comes_first_and_takes_pages() -> None:
    pool = PagePool(4, 4)
    scheduler = Scheduler(pool, 2, 16, 16)
    low, other, urgent = waiting(8, priority=5), waiting(8, priority=5), waiting(8, priority=0)
    scheduler.add(low)
    scheduler.add(other)
    for s in scheduler.schedule():
        scheduler.computed(s)
    scheduler.add(urgent)
    plan = scheduler.schedule()
    assert [s.request for s in plan] == [urgent]
    assert scheduler.running[0] is urgent
    assert [r.metrics.preemptions for r in (low, other, urgent)] == [0, 1, 0], "no more than it takes"

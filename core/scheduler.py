"""Continuous batching: which tokens of which sequences are computed in the next step.

The unit is *tokens to compute for a sequence now*. A prompt, a chunk of one, a decoded token and the recomputation after a
preemption are the same case: the sequence has more tokens than computed ones.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from .cache.media import EncoderCache
from .cache.pages import PagePool
from .cache.prefix import page_keys
from .cache.states import StatePool
from .request import Request, Status

Chunking = Literal["any", "item-atomic", "no"]


@dataclass(slots=True)  # not frozen: there is one for each token, and that would make it three times as slow to make
class Scheduled:
    """One sequence's part of a step.

    Attributes:
        request: The sequence.
        start, count: Its tokens `start … start + count - 1` are computed.
        encode: Indices of media items to encode first.
        encode_state: Whether the item that the decoder attends over is to be encoded first.
    """

    request: Request
    start: int
    count: int
    encode: tuple[int, ...] = ()
    encode_state: bool = False

    @property
    def samples(self) -> bool:
        """Whether the step reaches the last known token, so that a next one is sampled."""
        return self.start + self.count == len(self.request.token_ids)


StepPlan = list[Scheduled]


@dataclass
class _Step:
    """A step in the making.

    Attributes:
        tokens, rows: What is left of the budgets: tokens to compute, rows of embeddings to encode.
        plan: What it computes.
        encoding: Keys of the items that it encodes.
        coming: Keys of the pages that it completes.
    """

    tokens: int
    rows: int
    plan: StepPlan = field(default_factory=list)
    encoding: set[bytes] = field(default_factory=set)
    coming: set[bytes] = field(default_factory=set)


class Scheduler:
    """Keeps waiting and running sequences and plans steps.

    Args:
        pool: The pages.
        max_num_seqs: Most sequences in a step.
        max_num_batched_tokens: Most tokens in a step.
        max_encoder_tokens: Most rows of embeddings encoded in a step; a single larger item still passes, alone.
        encoder_cache: Embeddings of items that were encoded before.
        states: Who holds which encoder states, for a model with cross-attention.
        prefix_caching: Whether sequences share the pages of equal beginnings.
        chunking: Where a prompt may be cut: anywhere, not within a media item, or nowhere.
    """

    def __init__(
        self,
        pool: PagePool,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_encoder_tokens: int,
        encoder_cache: EncoderCache | None = None,
        states: StatePool | None = None,
        *,
        prefix_caching: bool = False,
        chunking: Chunking = "any",
    ) -> None:
        self.pool = pool
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.max_encoder_tokens = max_encoder_tokens
        self.encoder_cache = EncoderCache(0) if encoder_cache is None else encoder_cache
        self.states = states
        self.prefix_caching, self.chunking = prefix_caching, chunking
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self._arrivals = 0
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is unfinished."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a sequence: behind those of its priority and of better ones."""
        self._arrivals += 1
        request.order = self._arrivals
        insort(self.waiting, request, key=_turn)

    def schedule(self) -> StepPlan:
        """Plan the next step: running sequences first, in turn, then waiting ones while tokens and pages last."""
        self._make_room()
        step = _Step(self.max_num_batched_tokens, self.max_encoder_tokens)
        preemptions = self.num_preemptions
        self._go_on(step)
        # Who has just lost its pages would only take them back, so nobody is admitted in such a step.
        if self.num_preemptions == preemptions:
            self._admit(step)
        return step.plan

    def computed(self, scheduled: Scheduled) -> None:
        """Book what a step computed, and offer the pages that it filled to others."""
        request = scheduled.request
        request.num_computed = scheduled.start + scheduled.count
        if scheduled.encode_state and self.states is not None:
            self.states.written(request)
        full = request.num_computed // self.pool.page_size
        if self.prefix_caching and full > request.num_published:
            first = request.num_published
            for page, key in zip(request.pages[first:full], page_keys(request, self.pool.page_size)[first:full]):
                self.pool.publish(page, key)
            request.num_published = full

    def finish(self, requests: Iterable[Request]) -> None:
        """Let sequences go, wherever they are, and free what they held."""
        for request in requests:
            if request.status is Status.RUNNING:
                self._leave(request)
            elif request.status is Status.WAITING:
                self.waiting.remove(request)
            request.status = Status.FINISHED
            request.encoded.clear()

    # ---- running sequences ------------------------------------------------------------------------------------------

    def _go_on(self, step: _Step) -> None:
        """Give every running sequence its part. A long prompt leaves room for the tokens that others decode, and for
        prompts that wait."""
        index, size, wanted = 0, self.pool.page_size, self._wanted_by_waiting()
        while index < len(self.running) and step.tokens > 0:
            request = self.running[index]
            index += 1
            start, limit = request.num_computed, len(request.token_ids) - request.num_computed
            if limit == 1:
                if start >= request.prompt_len and start < size * len(request.pages):
                    # Most of what there is to do, in every step: a decoded token that has its page asks nothing more.
                    step.plan.append(Scheduled(request, start, 1))
                    step.tokens -= 1
                    continue
            else:
                reserved = wanted + sum(len(r.token_ids) - r.num_computed == 1 for r in self.running[index:])
                limit = min(limit, max(step.tokens - reserved, step.tokens // 4, 1))
            count, encode, rows = self._chunk(request, start, limit, step)
            if count == 0:
                continue
            if not self._secure_pages(request, start + count):
                break  # it was preempted itself, and with it every later one
            self._plan(Scheduled(request, start, count, encode), rows, step)

    def _wanted_by_waiting(self) -> int:
        """Tokens of the step that long prompts leave to waiting ones: at most half, and none when nobody could start."""
        half, wanted = self.max_num_batched_tokens // 2, 0
        if not self.waiting or not self._free_slots or not self._has_state_for(self.waiting[0]):
            return 0
        if self.pool.num_free < self.pool.pages_for(min(half, len(self.waiting[0].token_ids))):
            return 0
        for request in self.waiting:
            wanted += len(request.token_ids)
            if wanted >= half:
                return half
        return wanted

    def _plan(self, scheduled: Scheduled, rows: int, step: _Step) -> None:
        request, stop = scheduled.request, scheduled.start + scheduled.count
        step.plan.append(scheduled)
        step.tokens, step.rows = step.tokens - scheduled.count, step.rows - rows
        if scheduled.encode:
            step.encoding.update(request.items[i].key for i in scheduled.encode)
        if scheduled.encode_state and self.states is not None and request.encoder_item is not None:
            step.encoding.add(request.encoder_item.key)
            step.rows -= self.states.rows
        if self.prefix_caching and scheduled.count > 1:
            size = self.pool.page_size
            step.coming.update(page_keys(request, size)[scheduled.start // size : stop // size])

    def _secure_pages(self, request: Request, num_tokens: int) -> bool:
        """Get the pages for `num_tokens`, taking them from the last sequences when there are none; False when the sequence
        had to give up its own."""
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
        """Take a sequence's pages; it waits for its turn to be computed anew, from what is still at hand by then."""
        self._leave(request)
        request.status, request.num_computed, request.num_published = Status.WAITING, 0, 0
        request.encoded.clear()
        request.metrics.preemptions += 1
        self.num_preemptions += 1
        insort(self.waiting, request, key=_turn)

    def _leave(self, request: Request) -> None:
        self.running.remove(request)
        # The last pages first: they are the first to be given away, and a beginning is of use without them.
        self.pool.release(reversed(request.pages))
        self._free_slots.append(request.slot)
        request.pages, request.slot = [], -1
        if self.states is not None:
            self.states.release(request)

    # ---- waiting sequences ------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Preempt the last running sequences for a waiting one of better priority."""
        while self.waiting and self.running and self.waiting[0].priority < self.running[-1].priority:
            needed = self.pool.pages_for(min(len(self.waiting[0].token_ids), self.max_num_batched_tokens))
            if self._free_slots and self.pool.num_free >= needed and self._has_state_for(self.waiting[0]):
                break
            self._preempt(self.running[-1])

    def _admit(self, step: _Step) -> None:
        """Start waiting sequences, in turn, until one cannot be started.

        One whose beginning is being computed in this very step is passed over: in the next step it is at hand.
        """
        index = 0
        while index < len(self.waiting) and step.tokens > 0 and self._free_slots:
            request = self.waiting[index]
            held, next_key = self._at_hand(request)
            if next_key in step.coming or self._state_is_coming(request, step):
                index += 1
                continue
            start = len(held) * self.pool.page_size
            limit = min(len(request.token_ids) - start, step.tokens)
            count, encode, rows = self._chunk(request, start, limit, step)
            if count == 0 or not self._may_encode_state(request, step) or not self._start(request, held, start + count):
                request.encoded.clear()
                break
            del self.waiting[index]
            encode_state = request.encoder_item is not None and request.state_len == 0
            self._plan(Scheduled(request, start, count, encode, encode_state), rows, step)

    def _at_hand(self, request: Request) -> tuple[Sequence[int], bytes | None]:
        """The pages that hold a sequence's beginning already, and the key of the one after them.

        Its last token is always computed anew: somebody has to say what comes next.
        """
        if not self.prefix_caching or not request.reads_cache:
            return (), None
        size = self.pool.page_size
        keys = page_keys(request, size)[: (len(request.token_ids) - 1) // size]
        pages = self.pool.find(keys)
        next_key = keys[len(pages)] if len(pages) < len(keys) else None
        while pages and self._whole_around(request, len(pages) * size):
            pages.pop()
        return pages, next_key

    def _state_is_coming(self, request: Request, step: _Step) -> bool:
        """Whether the step encodes the very item that a sequence waits to attend over."""
        item = request.encoder_item
        return item is not None and bool(item.key) and item.key in step.encoding

    def _has_state_for(self, request: Request) -> bool:
        """Whether a waiting sequence could have its encoder states now: written ones, or room for them."""
        return self.states is None or self.states.has(request) or self.states.pool.num_free > 0

    def _may_encode_state(self, request: Request, step: _Step) -> bool:
        """Whether a sequence's encoder states are at hand, or fit what the step may still encode; one always does."""
        if request.encoder_item is None or self.states is None or self.states.has(request):
            return True
        return step.rows >= self.states.rows or step.rows == self.max_encoder_tokens

    def _start(self, request: Request, held: Sequence[int], num_tokens: int) -> bool:
        """Give a waiting sequence its pages, its encoder states and a slot; False when there is no room."""
        self.pool.share(held)
        pages = self.pool.take(self.pool.pages_for(num_tokens) - len(held))
        if pages is None or (self.states is not None and not self.states.take(request)):
            self.pool.release(reversed([*held, *(pages or ())]))
            return False
        request.status, request.pages, request.slot = Status.RUNNING, [*held, *pages], self._free_slots.pop()
        request.num_computed, request.num_published = len(held) * self.pool.page_size, len(held)
        request.admissions += 1
        if request.metrics.first_scheduled_time is None:
            request.metrics.first_scheduled_time = time.monotonic()
            request.num_cached = request.num_computed
        insort(self.running, request, key=_turn)
        return True

    # ---- chunks and media -------------------------------------------------------------------------------------------

    def _chunk(self, request: Request, start: int, limit: int, step: _Step) -> tuple[int, tuple[int, ...], int]:
        """How many tokens of a sequence the step computes, which items it encodes for them, and how many rows these are."""
        if start >= request.prompt_len:
            return limit, (), 0
        stop = start + limit
        whole = self._whole_around(request, stop)
        if whole is not None:
            first, last = whole
            # Over the budget, when it is the step's first chunk of a prompt: it would never have its turn otherwise.
            turn = not any(s.count > 1 for s in step.plan)
            stop = first if first > start else last if turn else start
        encode: list[int] = []
        used = 0
        for i in request.items_between(start, stop) if request.items else ():
            rows = self._rows_to_encode(request, i, step)
            if rows is None:
                continue
            alone = step.rows == self.max_encoder_tokens and (used == 0 or self.chunking == "no")
            if used + rows > step.rows and not alone:
                stop = start if self.chunking == "no" else max(start, request.items[i].placeholder.offset)
                break
            encode.append(i)
            used += rows
        return (stop - start, tuple(encode), used) if stop > start else (0, (), 0)

    def _rows_to_encode(self, request: Request, index: int, step: _Step) -> int | None:
        """What it costs to have an item's embeddings in this step; None when they are there."""
        item = request.items[index]
        if index in request.encoded:
            return None
        found = self.encoder_cache.get(item.key) if item.key and item.embeddings is None else None
        if found is not None:
            request.encoded[index] = found
            return None
        free = item.embeddings is not None or (item.key and item.key in step.encoding)
        return 0 if free else item.placeholder.num_embeds

    def _whole_around(self, request: Request, stop: int) -> tuple[int, int] | None:
        """The tokens, first and past the last, that may not be computed apart and that an end at `stop` would part."""
        if self.chunking == "any" or stop >= request.prompt_len:
            return None
        if self.chunking == "no":
            return (0, request.prompt_len) if stop > 0 else None
        for place in (request.items[i].placeholder for i in request.items_between(stop, stop + 1)):
            if place.offset < stop:
                return place.offset, place.offset + place.length
        return None


_turn = attrgetter("turn")

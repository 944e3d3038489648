"""One step as arrays: what the scheduler planned, in the form that kernels read.

The tokens of all sequences lie end to end. Sequences are sorted into groups of about as many new tokens and about as long a past,
so that each group is one batched product with little padding; there are at most a few groups, however many sequences.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.layers.rotary import RotaryEmbedding

from .cache.slots import StateRun, state_runs
from .recording.tape import active
from .request import Request
from .scheduler import Scheduled
from .sequences import PageTable, StepSequences
from .transfer import Places, send
from .wanted import Wanted

Ints = NDArray[np.int64]


@dataclass
class AttentionGroup:
    """Sequences that attend together, padded to the longest.

    Attributes:
        first, last: The group's tokens are rows `first … last - 1` of the step.
        rows: `(sequences, queries)` rows of the step; padding repeats the sequence's own last row: none reads another's.
        real: `(queries in the group,)` indices into the flattened `rows` that are not padding; None: all are real.
        pages: `(sequences, pages)` page numbers; padding is page 0.
        starts: `(sequences,)` position of each sequence's first query.
        fresh: Every sequence starts at 0 here: keys and values need not be read back from their pages.
    """

    first: int
    last: int
    rows: Tensor
    real: Tensor | None
    pages: Tensor
    starts: Tensor
    fresh: bool
    page_size: int
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def num_queries(self) -> int:
        """Queries of each sequence, padding included."""
        return self.rows.shape[1]

    @property
    def num_keys(self) -> int:
        """Keys that are read for each sequence, padding included."""
        return self.pages.shape[1] * self.page_size

    @property
    def lengths(self) -> Ints:
        """`(sequences,)` keys that each sequence's first query sees, itself included."""
        out: Ints = self.starts.numpy() + 1
        return out

    def distances(self) -> Tensor:
        """`(sequences, queries, keys)`: key position minus query position."""
        device = self.starts.device
        keys = self.num_queries if self.fresh else self.num_keys
        queries = self.starts[:, None] + torch.arange(self.num_queries, device=device)
        return torch.arange(keys, device=device) - queries[:, :, None]

    def mask(self, window: int | None) -> Tensor:
        """`(sequences, 1, queries, keys)` bool: which keys a query sees. Made once a step for each window."""
        found = self._masks.get(window)
        if found is None:
            distance = self.distances()
            found = distance <= 0
            if window is not None:
                found &= distance > -window
            self._masks[window] = found = found.unsqueeze(1)
        return found


@dataclass
class StepTensors:
    """What a step's kernels read.

    Attributes:
        order: The scheduled sequences in the order of their tokens.
        input_ids, positions: `(tokens,)`.
        cache_slots: `(tokens,)` where each token's key and value go: page * page size + offset.
        lengths: `(tokens,)` the sequence length that counts for length-dependent rotary frequencies.
        below: No position is as large.
        make_groups, make_sequences: See `groups` and `sequences`.
        places: Where what is made later goes.
        pages: `(slots, pages)` int32, the page table.
        sampled: The sequences that get a token, in this order.
        sample_rows: `(sampled,)` rows whose hidden states become logits.
        watched: Whether somebody wants to see how some of the tokens attend over encoder states.
        wanted: See `want_few`; None: all rows are.
    """

    order: list[Scheduled]
    input_ids: Tensor
    positions: Tensor
    cache_slots: Tensor
    lengths: Tensor
    below: int
    make_groups: Callable[[], list[AttentionGroup]]
    make_sequences: Callable[[], StepSequences]
    places: Places
    pages: Tensor
    sampled: list[Request]
    sample_rows: Tensor
    watched: bool = False
    wanted: Wanted | None = None
    _rotary: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[AttentionGroup]:
        """How attention is batched, for kernels that take sequences of one shape."""
        return self.make_groups()

    @cached_property
    def sequences(self) -> StepSequences:
        """The sequences one by one, for kernels that walk pages by themselves."""
        return self.make_sequences()

    @cached_property
    def state_sequences(self) -> StepSequences:
        """The same over encoder states: a slot is a state, a length its rows."""
        found = [(s.request.state, s.count, s.request.state_len) for s in self.order]
        states, counts, lengths = np.array(found, dtype=np.int64).T
        return StepSequences.of("states", states, counts, lengths, self.places)

    @cached_property
    def state_runs(self) -> list[StateRun]:
        """The sequences as state layers advance them: those of as many tokens together."""
        return state_runs(self.order, self.places.device)

    def want_few(self) -> None:
        """Say that rows without logits are wanted of no layer, if they are the most."""
        if 2 * len(self.sample_rows) > len(self.input_ids):
            return
        firsts, last = self.sequences.firsts.numpy(), self.sample_rows.numpy()
        places = np.searchsorted(firsts, last, side="right") - 1
        slots, lengths = (x.numpy()[places] for x in (self.sequences.slots, self.sequences.lengths))
        self.wanted = Wanted(self.sample_rows, slots, lengths, len(self.input_ids))

    def cos_sin(
        self, rotary: RotaryEmbedding, dtype: torch.dtype, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines, `(tokens, rotary_dim / 2)`, contiguous: computed once a step for all layers that share `rotary`.

        A model that gives its attention other positions than the step's gets those.
        """
        if positions is not None and positions is not self.positions:
            cos, sin = rotary.cos_sin(positions, self.lengths)
            return cos.to(dtype).contiguous(), sin.to(dtype).contiguous()
        found = self._rotary.get((id(rotary), dtype))
        if found is None:
            cos, sin = rotary.cos_sin(self.positions, self.lengths, below=self.below)
            found = (cos.to(dtype).contiguous(), sin.to(dtype).contiguous())
            self._rotary[id(rotary), dtype] = found
        return found


class StepHolder:
    """The step that is running, as the kernels bound into a model see it. One for each engine."""

    def __init__(self) -> None:
        self.current: StepTensors | None = None

    def wanted_rows(self, x: Tensor) -> Tensor | None:
        """Which rows of a step's hidden states `x` are still wanted; None: all, or they are something else."""
        wanted = None if self.current is None else self.current.wanted
        if wanted is None or wanted.queries is None or x.ndim != 2 or len(x) != wanted.total:
            return None
        return wanted.rows

    @property
    def tensors(self) -> StepTensors:
        """The running step."""
        if self.current is None:
            raise RuntimeError("a bound model was called outside a step of its engine")
        tape = active()
        if tape is not None:  # a kernel that is not called anew
            tape.refuse("has layers that depend on more of a step than its tokens")
        return self.current


class StepBuilder:
    """Turns plans into tensors. Keeps one row of token ids and page numbers for each running sequence.

    On a GPU what has one entry a token stays at one place in memory, step after step, and nothing here waits for the device.

    Args:
        max_num_seqs: Rows.
        max_model_len: Longest sequence.
        page_size: Tokens in a page.
        device: Where the tensors go.
        step_tokens: Most tokens in a step; a larger step makes room for itself.
    """

    def __init__(
        self, max_num_seqs: int, max_model_len: int, page_size: int, device: torch.device, step_tokens: int = 0
    ) -> None:
        self.page_size, self.device, self.places = page_size, device, Places(device, step_tokens)
        self.tokens = np.zeros((max_num_seqs, max_model_len + 1), dtype=np.int32)
        self.pages = np.zeros((max_num_seqs, -(-max_model_len // page_size) + 1), dtype=np.int32)
        self.table = PageTable(self.pages, device)
        self._known, self._num_pages, self._admission = ([0] * max_num_seqs for _ in range(3))
        self._owner: list[weakref.ref[Request] | None] = [None] * max_num_seqs

    def _refresh(self, plan: Sequence[Scheduled]) -> None:
        """Bring the rows of the scheduled sequences up to date."""
        for scheduled in plan:
            request, slot = scheduled.request, scheduled.request.slot
            owner = self._owner[slot]
            if owner is None or owner() is not request or self._admission[slot] != request.admissions:
                self._owner[slot] = weakref.ref(request)  # its pictures must not outlive it here
                self._admission[slot] = request.admissions
                self._known[slot] = self._num_pages[slot] = 0
            known, total = self._known[slot], len(request.token_ids)
            if known < total:
                self.tokens[slot, known:total] = request.token_ids[known:]
                self._known[slot] = total
            have, pages = self._num_pages[slot], len(request.pages)
            if have < pages:
                self.pages[slot, have:pages] = request.pages[have:]
                self._num_pages[slot] = pages
                self.table.changed(slot, have, pages)
        self.table.send()

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return send(values, self.device)

    def build(self, plan: Sequence[Scheduled]) -> StepTensors:
        """Lay a plan out as tensors. It computes something: a plan of nothing ends in `Runner.run`, before any kernel."""
        self._refresh(plan)
        known = [(s.start, s.count, s.request.slot, s.request.whole_len) for s in plan]
        starts, counts, slots, whole = np.array(known, dtype=np.int64).T
        keys = self._group_keys(starts, counts)
        order = keys.argsort(kind="stable")
        ordered = [plan[i] for i in order.tolist()]
        starts, counts, slots, whole, keys = starts[order], counts[order], slots[order], whole[order], keys[order]
        firsts = counts.cumsum() - counts
        total = int(counts.sum())
        of: Ints | slice = slice(None) if total == len(plan) else np.arange(len(plan)).repeat(counts)
        rows, positions = slots[of], (starts - firsts)[of] + np.arange(total)
        pages = self.pages[rows, positions // self.page_size].astype(np.int64)
        samples = [s.samples for s in ordered]
        return StepTensors(
            order=ordered,
            input_ids=self.places.put("input_ids", self.tokens[rows, positions].astype(np.int64)),
            positions=self.places.put("positions", positions),
            cache_slots=self.places.put("cache_slots", pages * self.page_size + positions % self.page_size),
            lengths=self.places.put("lengths", np.maximum(whole[of], positions + 1)),
            below=int((starts + counts).max()),
            make_groups=partial(self._groups, keys, slots, starts, counts, firsts),
            make_sequences=partial(StepSequences.of, "pages", slots, counts, starts + counts, self.places),
            places=self.places,
            pages=self.table.tensor,
            sampled=[s.request for s, last in zip(ordered, samples) if last],
            sample_rows=self._tensor((firsts + counts - 1)[samples]),
            watched=_watched(ordered),
        )

    def _group_keys(self, starts: Ints, counts: Ints) -> Ints:
        """Which group each sequence belongs to: queries and pages rounded up to powers of two, fresh prompts apart."""
        pages = -(-(starts + counts) // self.page_size)
        depth = np.where((starts == 0) & (counts > 1), 63, _bits(pages - 1))
        keys: Ints = _bits(counts - 1) * 64 + depth  # numpy 2.3's types say less than later ones
        return keys

    def _groups(self, keys: Ints, slots: Ints, starts: Ints, counts: Ints, firsts: Ints) -> list[AttentionGroup]:
        edges = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        groups = []
        for a, b in zip(edges, [*edges[1:], len(keys)]):
            most = int(counts[a:b].max())
            offsets = np.arange(most)
            real = offsets < counts[a:b, None]
            rows = firsts[a:b, None] + np.minimum(offsets, counts[a:b, None] - 1)
            num_pages = int(-(-(starts[a:b] + counts[a:b]).max() // self.page_size))
            held = -(-(starts[a:b] + counts[a:b]) // self.page_size)
            pages = np.where(np.arange(num_pages) < held[:, None], self.pages[slots[a:b], :num_pages], 0)
            groups.append(
                AttentionGroup(
                    first=int(firsts[a]),
                    last=int(firsts[b - 1] + counts[b - 1]),
                    rows=self._tensor(rows),
                    real=None if real.all() else self._tensor(np.flatnonzero(real)),
                    pages=self._tensor(pages.astype(np.int64)),
                    starts=self._tensor(starts[a:b]),
                    fresh=bool((starts[a:b] == 0).all() and most > 1),
                    page_size=self.page_size,
                )
            )
        return groups


def _bits(values: Ints) -> Ints:
    """How many bits it takes to write each: the logarithm to the base 2 of the next value, rounded up."""
    exponents: Ints = np.frexp(values)[1].astype(np.int64)
    return exponents


def _watched(order: Sequence[Scheduled]) -> bool:
    if order[0].request.encoder_item is None:
        return False
    return any(s.request.cross_attention_heads and s.start < s.request.prompt_len for s in order)

"""What state layers keep of the sequences that run: a slot of fixed size for each, however long it grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from ..scheduler import Scheduled
from ..transfer import send


@dataclass(frozen=True)
class StateRun:
    """Sequences of a step that lie side by side and compute as many tokens each: they advance together.

    Attributes:
        first: Row of the step where their tokens begin.
        last: Past the row where they end.
        slots: `(sequences,)` where their states are.
        begin: `(new,)` which of them begin here, so that what an earlier owner left in their slots is nothing to them.
        side_by_side: Their slots, where these lie in the same order without a gap: states are used in place.
    """

    first: int
    last: int
    slots: Tensor
    begin: Tensor | None
    side_by_side: slice | None

    def rows(self, x: Tensor) -> Tensor:
        """Their part of what has one row a token: `(sequences, n, …)`."""
        return x[self.first : self.last].view(len(self.slots), -1, *x.shape[1:])

    def read(self, kept: Tensor) -> Tensor:
        """Their states, zero for those that begin: `(slots, *shape) → (sequences, *shape)`."""
        found = kept.index_select(0, self.slots) if self.side_by_side is None else kept[self.side_by_side]
        return found if self.begin is None else found.index_fill_(0, self.begin, 0)

    def write(self, kept: Tensor, state: Tensor) -> None:
        """Keep their states; those that were written in place are kept already."""
        if self.side_by_side is None:
            kept.index_copy_(0, self.slots, state)
        elif state.data_ptr() != kept[self.side_by_side].data_ptr():
            kept[self.side_by_side] = state


def state_runs(order: Sequence[Scheduled], device: torch.device) -> list[StateRun]:
    """The runs of a step's sequences, in the order of their tokens."""
    runs: list[StateRun] = []
    first = 0
    for count, group in groupby(order, key=attrgetter("count")):
        some = list(group)
        last = first + count * len(some)
        slots = np.array([s.request.slot for s in some], dtype=np.int64)
        begin = np.flatnonzero([s.start == 0 for s in some])
        span = slice(int(slots[0]), int(slots[0]) + len(slots))
        dense = np.array_equal(slots, np.arange(span.start, span.stop))
        runs.append(
            StateRun(
                first=first,
                last=last,
                slots=send(slots, device),
                begin=send(begin, device) if len(begin) else None,
                side_by_side=span if dense else None,
            )
        )
        first = last
    return runs

"""The rows of a step that become logits, where they are few: after its last attention a model need compute no others.

A prompt of 2,048 tokens is asked for one row of logits. All of its rows are needed until the last layer's keys and values are
written; from there on rows do not meet any more, and those that nobody wants are left out (`core.kernels.narrowing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class OutOfOrder(Exception):
    """Attention was called after the one that was taken for the last."""


@dataclass
class Wanted:
    """What is wanted of a step.

    Attributes:
        rows: `(wanted,)` rows of the step, each the last of its sequence's.
        slots, lengths: `(wanted,)` int32: of each one's sequence the row of the page table, and how many keys it sees.
        total: Rows of the step.
        queries: What the last attention was called with, `(total, heads, head_dim)`; None: it was not yet. Whatever went wrong
            before in some row is seen in its queries.
    """

    rows: Tensor
    slots: NDArray[np.int32]
    lengths: NDArray[np.int32]
    total: int
    queries: Tensor | None = None

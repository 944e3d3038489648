"""How the compiled attention divides a step among threads: some queries of a sequence, and some of its heads, at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._attention import room_at

ROWS = 192
"""Rows (queries × the heads that share keys) of a job: enough that a tile of keys is used often, and they fit the cache."""
FEW_ROWS = 32
"""Rows up to which one job does all heads, where there are jobs enough: each key is then read with its neighbours."""


class Scratch(NamedTuple):
    """Memory for the workers of a call: `address` is within `memory`, of which each takes `per_worker` bytes."""

    memory: Tensor
    address: int
    per_worker: int


@dataclass
class Jobs:
    """What `paged_attention` is to do, in every layer of one shape.

    Attributes:
        table: `(jobs, 7)`, the longest first; see `paged_attention`.
        block: Most rows × heads of a job.
        scores: How many scores there are, of each query head.
    """

    table: NDArray[np.int64]
    block: int
    scores: int
    _scratch: Scratch | None = None
    _workers: int = 0

    def scratch(self, workers: int, dim: int, element: int, *, wide: bool) -> Scratch:
        """Memory for so many workers, the same for every call: layers run one after the other.

        Args:
            workers: How many.
            dim: Of a head.
            element: Bytes of what products are computed in.
            wide: Whether that is not what keys and values are kept in.
        """
        if self._scratch is None or workers > self._workers:  # torch may be given more threads meanwhile
            _, per_worker = room_at(0, self.block, dim, element, int(wide))
            self._workers = workers
            memory = torch.empty(64 * 2 + per_worker * workers, dtype=torch.uint8)
            self._scratch = Scratch(memory, (memory.data_ptr() + 63) // 64 * 64, per_worker)
        return self._scratch


def make_jobs(
    slots: NDArray[np.int32], firsts: NDArray[np.int32], counts: NDArray[np.int64], lengths: NDArray[np.int32],
    heads: int, kv_heads: int,
) -> Jobs:  # fmt: skip
    """Divide a step.

    Args:
        slots: Each sequence's row of the page table.
        firsts: The row of q where its queries begin.
        counts: How many they are: the last positions of it.
        lengths: Its keys.
        heads, kv_heads: The layer's.
    """
    group = heads // kv_heads
    most = max(1, ROWS // group)
    largest = min(most, int(counts.max()))
    of, start, count = np.arange(len(counts)), np.zeros_like(counts), counts
    if int(counts.max()) > most:
        many = -(-counts // most)
        of = np.repeat(of, many)
        start = (np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)) * most
        count = np.minimum(counts[of] - start, most)
    together = kv_heads if largest * heads <= FEW_ROWS and len(count) >= 4 * torch.get_num_threads() else 1
    table = np.empty((len(count), 7), dtype=np.int64)
    table[:, 0], table[:, 1] = slots[of], firsts[of] + start
    table[:, 3], table[:, 4] = count, lengths[of]
    table[:, 2] = lengths[of] - counts[of] + start
    table[:, 5], table[:, 6] = 0, together
    scores = count * (table[:, 2] + count)
    table = table[np.argsort(-scores, kind="stable")]
    parts = kv_heads // together
    if parts > 1:
        table = np.repeat(table, parts, axis=0)
        table[:, 5] = np.tile(np.arange(parts) * together, len(count))
    return Jobs(table, largest * group * together, int(scores.sum()))

"""How the compiled attention divides a step among threads: some queries of a sequence, some of its heads, and where there are few
queries some of its keys, at a time. What comes out does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._attention import SPAN, part_size, room_at
from ._jobs import divide
from .compiled import GRAIN

ROWS = 192
"""Rows (queries × the heads that share keys) of a job: enough that a tile of keys is used often, and they fit the cache."""
FEW_ROWS = 32
"""Rows up to which a job does many heads, where there are jobs enough: each key is then read with its neighbours."""

SHARE = 4
"""As many products of a score are computed while one element of other kernels is."""


class Scratch(NamedTuple):
    """Memory for the workers of a call: `address` is within `memory`, of which each takes `per_worker` bytes; `parts`, behind
    them, is for the parts of divided jobs."""

    memory: Tensor
    address: int
    per_worker: int
    parts: int


@dataclass
class Jobs:
    """What `paged_attention` is to do, in every layer of one shape.

    Attributes:
        table: `(jobs, 10)`, the longest first; see `paged_attention`.
        block: Most rows × heads of a job.
        work: About how many elements of other kernels take as long.
        parts: Parts of divided jobs.
    """

    table: NDArray[np.int64]
    block: int
    work: int
    parts: int
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
            *_, per_worker = room_at(0, self.block, dim, element, int(wide))
            self._workers = workers
            for_workers, for_parts = 64 + per_worker * workers, self.parts * part_size(self.block, dim)
            memory = torch.empty(64 + for_workers + for_parts, dtype=torch.uint8)
            address = (memory.data_ptr() + 63) // 64 * 64
            memory[len(memory) - 64 - for_parts :] = 0
            self._scratch = Scratch(memory, address, per_worker, address + for_workers)
        return self._scratch


def make_jobs(
    slots: NDArray[np.int32], firsts: NDArray[np.int32], counts: NDArray[np.int64], lengths: NDArray[np.int32],
    heads: int, kv_heads: int, head_dim: int,
) -> Jobs:  # fmt: skip
    """Divide a step.

    Args:
        slots: Each sequence's row of the page table.
        firsts: The row of q where its queries begin.
        counts: How many they are: the last positions of it.
        lengths: Its keys.
        heads, kv_heads, head_dim: The layer's.
    """
    group = heads // kv_heads
    most, wanted = max(1, ROWS // group), 4 * torch.get_num_threads()
    of_score = max(1, heads * head_dim // SHARE)
    table, block, scores, parts = divide(
        slots, firsts, counts, lengths, group, kv_heads, most, FEW_ROWS, SPAN, wanted, -(-GRAIN // of_score)
    )
    return Jobs(table, block, scores * of_score, parts)

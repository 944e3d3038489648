"""Divides the attention of a step into jobs: once a step, on data that no cache holds, for which numpy's many calls take long."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .disk_cache import cached

FIELDS = 10
"""Of a job; see `_attention.paged_attention`."""


@cached
@numba.njit(nogil=True, error_model="numpy")
def divide(slots: Any, firsts: Any, counts: Any, lengths: Any, group: int, kv_heads: int, most: int, few: int, span: int,
           wanted: int, alone: int) -> Any:  # fmt: skip
    """The table of jobs, the longest first; most rows × heads of one, scores of each query head, and parts of divided jobs.

    Args (arrays, one entry a sequence): see `jobs.make_jobs`; `group`: heads that share keys; `most`: queries of a job; `few`:
    rows up to which a job does many heads; `span`: keys of a part; `wanted`: jobs that are enough; `alone`: scores of each head
    below which one thread does it all.
    """
    largest, blocks, spans = 0, 0, 0
    for count, length in zip(counts, lengths):
        largest, blocks = max(largest, min(most, count)), blocks + (count + most - 1) // most
        spans += (length + span - 1) // span
    sequences, starts, sizes = np.empty(blocks, np.int64), np.empty(blocks, np.int64), np.empty(blocks, np.int64)
    n, total = 0, 0
    for i in range(len(counts)):
        for start in range(0, counts[i], most):
            count = min(most, counts[i] - start)
            sequences[n], starts[n] = i, start
            sizes[n] = -count * (lengths[i] - counts[i] + start + count)
            total -= sizes[n]
            n += 1
    # Few queries: a job does all heads, so that keys are read in one stream, and some of the keys where jobs are too few.
    together, divided = 1, False
    if largest * group * kv_heads <= few:
        together = kv_heads
        if total >= alone:
            divided = blocks < wanted
            jobs = spans if divided else blocks
            while together > 1 and jobs * (kv_heads // together) < wanted // 2:
                together -= 1
                while kv_heads % together:
                    together -= 1
    jobs = 0
    for i in sequences:
        jobs += (lengths[i] + span - 1) // span if divided else 1
    table = np.empty((jobs * (kv_heads // together), FIELDS), np.int64)
    n, parts = 0, 0
    for block in np.argsort(sizes, kind="mergesort"):  # which keeps the order of equal ones
        i, start = sequences[block], starts[block]
        of = (lengths[i] + span - 1) // span if divided else 1
        for head in range(0, kv_heads, together):
            for part in range(of):
                job = table[n]
                job[0], job[1], job[2] = slots[i], firsts[i] + start, lengths[i] - counts[i] + start
                job[3], job[4], job[5], job[6] = min(most, counts[i] - start), lengths[i], head, together
                job[7], job[8], job[9] = part, of, parts
                n += 1
            parts += of if of > 1 else 0
    return table, largest * group * together, total, parts


__all__ = ["divide"]

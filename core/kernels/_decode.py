"""Compiled decode attention: one query a sequence over its pages, each cached byte read once for all heads that share it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .compiled import at, exp, kernel, load, store, tanh


@kernel
def paged_decode(q: int, q_stride: int, keys: int, values: int, pages: Any, lengths: Any, out: int, heads: int, kv_heads: int,
                 dim: int, page_size: int, scale: float, cap: float, window: int, kind: Any) -> None:  # fmt: skip
    """`out[i] = attention(q[i], keys and values of sequence i)`, by an online softmax over pages (Milakov & Gimelshein 2018).

    Args (arrays): pages `(sequences, most pages)` int64, lengths `(sequences,)` int64 with the query's own token counted;
    `window` and soft `cap` 0: none.
    """
    sequences = len(lengths)
    group = heads // kv_heads
    row, width = kv_heads * dim, (page_size + 3) // 4 * 4
    qs, os = at(q, kind), at(out, kind)
    kp, vp = at(keys, kind), at(values, kind)
    for job in prange(sequences * kv_heads):
        i, h = job // kv_heads, job % kv_heads
        query = np.empty(group * dim, dtype=np.float32)
        total = np.zeros(group * dim, dtype=np.float32)
        scores = np.empty(group * width, dtype=np.float32)
        best = np.full(group, -np.inf, dtype=np.float32)
        weight = np.zeros(group, dtype=np.float32)
        lines = np.empty(4 * dim, dtype=np.float32)
        for g in range(group):
            for d in range(dim):
                query[g * dim + d] = load(qs, i * q_stride + (h * group + g) * dim + d) * np.float32(scale)
        first = max(0, lengths[i] - window) if window > 0 else 0
        for p in range(first // page_size, (lengths[i] + page_size - 1) // page_size):
            start, stop = max(first - p * page_size, 0), min(lengths[i] - p * page_size, page_size)
            base = pages[i, p] * page_size * row + h * dim
            count = stop - start
            # Four keys at a time, so that a query is read once for four products; the last four may repeat a key.
            for four in range(0, count, 4):
                for j in range(4):
                    t = start + min(four + j, count - 1)
                    for d in range(dim):
                        lines[j * dim + d] = load(kp, base + t * row + d)
                for g in range(group):
                    w0, w1, w2, w3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                    for d in range(dim):
                        x = query[g * dim + d]
                        w0 += x * lines[d]
                        w1 += x * lines[dim + d]
                        w2 += x * lines[2 * dim + d]
                        w3 += x * lines[3 * dim + d]
                    scores[g * width + four] = w0
                    scores[g * width + four + 1] = w1
                    scores[g * width + four + 2] = w2
                    scores[g * width + four + 3] = w3
            if cap > 0:
                for s in range(group * width):
                    scores[s] = np.float32(cap) * tanh(scores[s] / np.float32(cap))
            for g in range(group):
                top = best[g]
                for t in range(count):
                    top = max(top, scores[g * width + t])
                shrink = exp(best[g] - top)
                best[g] = top
                added = np.float32(0.0)
                for t in range(count):
                    scores[g * width + t] = exp(scores[g * width + t] - top)
                    added += scores[g * width + t]
                for t in range(count, (count + 3) // 4 * 4):
                    scores[g * width + t] = np.float32(0.0)
                weight[g] = weight[g] * shrink + added
                for d in range(dim):
                    total[g * dim + d] *= shrink
            for four in range(0, count, 4):
                for j in range(4):
                    t = start + min(four + j, count - 1)
                    for d in range(dim):
                        lines[j * dim + d] = load(vp, base + t * row + d)
                for g in range(group):
                    w0, w1 = scores[g * width + four], scores[g * width + four + 1]
                    w2, w3 = scores[g * width + four + 2], scores[g * width + four + 3]
                    for d in range(dim):
                        total[g * dim + d] += (
                            w0 * lines[d] + w1 * lines[dim + d] + w2 * lines[2 * dim + d] + w3 * lines[3 * dim + d]
                        )
        for g in range(group):
            for d in range(dim):
                store(os, (i * heads + h * group + g) * dim + d, total[g * dim + d] / weight[g])

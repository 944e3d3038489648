"""Attention in both directions by the compiled kernel: the keys of each item are a page.

The specifications are `sdk.layers.EncoderAttention.reference` and `sdk.layers.PackedEncoderAttention.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.layers import EncoderAttention, PackedEncoderAttention
from sdk.layers.base import Kernel

from .attention_compiled import AttentionKernel, PagesOf
from .jobs import make_jobs


class _CompiledItems:
    """What both layers share.

    Args:
        layer: The layer.
        dtype: The model's.
        fallback: What serves where the kernel cannot.
    """

    def __init__(self, layer: EncoderAttention | PackedEncoderAttention, dtype: torch.dtype, fallback: Kernel) -> None:
        self.fallback = fallback
        self.kernel = AttentionKernel(
            layer.num_heads, layer.num_heads, layer.head_dim, layer.scale, dtype, causal=False
        )

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, counts: NDArray[np.int64], starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> Tensor:  # fmt: skip
        """Items of `counts` rows of q, end to end, over `lengths` rows of k and v from `starts`: `(rows, heads, head_dim)`."""
        heads = self.kernel.heads
        # An item is a page of its own, as long as need be, that begins at its first row.
        items = np.flatnonzero(counts).astype(np.int32)
        firsts = (np.cumsum(counts) - counts).astype(np.int32)
        pages = PagesOf(k.data_ptr(), v.data_ptr(), k.stride(0), k.stride(0), len(k) + 1)
        jobs = make_jobs(
            items, firsts[items], counts[items], lengths[items].astype(np.int32), heads, heads, self.kernel.head_dim
        )
        return self.kernel(q, pages, starts.astype(np.int32)[:, None], jobs)

    def _reads(self, q: Tensor, k: Tensor, v: Tensor) -> bool:
        return len(q) > 0 and k.stride() == v.stride() and self.kernel.reads(q, k, v)


class CompiledEncoderAttention(_CompiledItems):
    """Fills one `sdk.layers.EncoderAttention`; masks that hide more than the ends of items go to the fallback."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        items, n, m = q.shape[0], q.shape[1], k.shape[1]
        lengths = np.full(items, m)
        if mask is not None:
            lengths = mask.sum(dim=1).numpy()
            if not torch.equal(mask, torch.arange(m) < torch.from_numpy(lengths)[:, None]):
                out: Tensor = self.fallback(q, k, v, mask)
                return out
        if _end_to_end(q) and _end_to_end(k) and _end_to_end(v):
            q_rows, k_rows, v_rows = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
            if self._reads(q_rows, k_rows, v_rows):
                counts, starts = np.full(items, n), np.arange(items) * m
                return self._attend(q_rows, k_rows, v_rows, counts, starts, lengths).view(items, n, -1)
        out = self.fallback(q, k, v, mask)
        return out


class CompiledPackedAttention(_CompiledItems):
    """Fills one `sdk.layers.PackedEncoderAttention`."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        if not self._reads(q, k, v):
            out: Tensor = self.fallback(q, k, v, lengths)
            return out
        counts = np.array(lengths, dtype=np.int64)
        return self._attend(q, k, v, counts, np.cumsum(counts) - counts, counts)


def _end_to_end(x: Tensor) -> bool:
    """Whether the rows of all items lie one after the other: `(items, rows, heads, head_dim)`."""
    return x.shape[0] <= 1 or x.stride(0) == x.shape[1] * x.stride(1)


__all__ = ["CompiledEncoderAttention", "CompiledPackedAttention"]

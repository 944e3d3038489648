"""The compiled parts of attention on a CPU: rotary with the write of K/V, and attention over keys and values in pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.layers import Attention

from ..sequences import StepSequences
from ..step import StepTensors
from ..wanted import Wanted
from ._attention import Shape, paged_attention
from ._lanes import DOTS_BF16
from ._rows import rotary_and_write
from .compiled import kind_of
from .jobs import Jobs, make_jobs


def form_of(dtype: torch.dtype, head_dim: int) -> Any:
    """What products are computed in: pairs of bfloat16 where the machine multiplies them, else float32."""
    pairs = dtype is torch.bfloat16 and DOTS_BF16 and head_dim % 2 == 0
    return kind_of(torch.bfloat16 if pairs else torch.float32)


class PagesOf(NamedTuple):
    """Where keys and values are: heads side by side, `row_stride` elements from one key of a page to the next, `page_stride`
    from page to page; `keys` and `values` are addresses."""

    keys: int
    values: int
    row_stride: int
    page_stride: int
    page_size: int

    @classmethod
    def pool(cls, keys: Tensor, values: Tensor) -> PagesOf:
        """Of tensors `(pages, page_size, kv_heads, head_dim)` that lie alike."""
        return cls(keys.data_ptr(), values.data_ptr(), keys.stride(1), keys.stride(0), keys.shape[1])


@dataclass(frozen=True)
class AttentionKernel:
    """`paged_attention` for layers of one shape.

    Attributes:
        heads, kv_heads, head_dim, scale: The layer's.
        dtype: Of q, keys and values.
        causal: A query sees its own position and the earlier ones; else all.
        window, cap: 0: none.
        slopes, sinks: `(heads,)` or None.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    dtype: torch.dtype
    causal: bool = True
    window: int = 0
    cap: float = 0.0
    slopes: Tensor | None = None
    sinks: Tensor | None = None
    _kinds: tuple[Any, Any] = field(init=False)
    _shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kinds", (kind_of(self.dtype), form_of(self.dtype, self.head_dim)))
        slopes, sinks = (x.data_ptr() if x is not None else 0 for x in (self.slopes, self.sinks))
        window, cap = self.window, float(self.cap)
        shape = Shape(
            self.heads, self.kv_heads, self.head_dim, float(self.scale), cap, window, self.causal, slopes, sinks
        )
        object.__setattr__(self, "_shape", shape)

    def reads(self, *tensors: Tensor) -> bool:
        """Whether these `(…, heads, head_dim)` tensors lie as the kernel wants them: heads side by side."""
        return all(t.dtype is self.dtype and t.stride(-1) == 1 and t.stride(-2) == self.head_dim for t in tensors)

    def empty(self, q: Tensor) -> Tensor:
        """Room for what comes of these queries, `(tokens, heads * head_dim)`."""
        return torch.empty(len(q), self.heads * self.head_dim, dtype=q.dtype)

    def __call__(
        self, q: Tensor, pages: PagesOf, table: NDArray[np.int32], jobs: Jobs, out: Tensor | None = None
    ) -> Tensor:
        """`(tokens, heads, head_dim) -> (tokens, heads * head_dim)`; `table` `(sequences, pages)` tells which pages are whose."""
        out = self.empty(q) if out is None else out
        reads, writes, works = self.reads_from(q, pages), self.writes_to(out), self.works_on(jobs)
        paged_attention(jobs.work, *reads, table, jobs.table, *writes, *works)
        return out

    # ---- the kernel's arguments, by how long they stay as they are --------------------------------------------------

    def reads_from(self, q: Tensor, pages: PagesOf) -> tuple[Any, ...]:
        """What is read, up to the page table and the jobs."""
        return q.data_ptr(), q.stride(0), *pages

    def writes_to(self, out: Tensor) -> tuple[Any, ...]:
        """What is written, and the layer's shape."""
        return out.data_ptr(), self._shape

    def works_on(self, jobs: Jobs) -> tuple[Any, ...]:
        """The memory of these jobs' workers, and the rest."""
        kind, form = self._kinds
        workers = torch.get_num_threads()
        scratch = jobs.scratch(workers, self.head_dim, form.itemsize, wide=form.dtype != kind.dtype)
        return scratch.address, scratch.per_worker, scratch.parts, jobs.block, workers, kind, form


class StepJobs:
    """The jobs of the running step, made once for all layers of one shape."""

    def __init__(self) -> None:
        self._of: StepSequences | None = None
        self._made: dict[tuple[int, int, int], Jobs] = {}
        self.recorded: dict[tuple[int, ...], Any] = {}
        """What the running step brings to layers of a recording; see `attention_recorded`."""

    def of(self, sequences: StepSequences, heads: int, kv_heads: int, head_dim: int) -> Jobs:
        """The jobs of these sequences."""
        if self._of is not sequences:
            self._of, self._made = sequences, {}
        found = self._made.get((heads, kv_heads, head_dim))
        if found is None:
            s = sequences
            found = make_jobs(s.slots.numpy(), s.firsts.numpy(), s.counts, s.lengths.numpy(), heads, kv_heads, head_dim)
            self._made[heads, kv_heads, head_dim] = found
        return found


class Angles(NamedTuple):
    """Cosines and sines, and what `rotary_and_write` takes of them: two addresses and half of what is rotated of a head."""

    tensors: tuple[Tensor, Tensor] | None
    arguments: tuple[int, int, int]


def tokens_at(*tensors: Tensor) -> tuple[int, ...]:
    """The address of each, and how many elements lie from token to token."""
    return tuple(number for tensor in tensors for number in (tensor.data_ptr(), tensor.stride(0)))


class CompiledAttention:
    """Serves one layer; see `PagedAttention`.

    Args:
        layer: Any.
        keys, values: The layer's part of the pool.
        jobs: Shared by the layers of a model.
    """

    def __init__(self, layer: Attention, keys: Tensor, values: Tensor, jobs: StepJobs) -> None:
        self.layer, self.keys, self.values, self.jobs = layer, keys, values, jobs
        self.sizes = (*self.heads, kind_of(torch.float32), kind_of(keys.dtype))
        self.pages = PagesOf.pool(keys, values)
        self.kernel = AttentionKernel(
            layer.num_heads,
            layer.num_kv_heads,
            layer.head_dim,
            layer.scale,
            keys.dtype,
            window=layer.sliding_window or 0,
            cap=layer.logit_softcap or 0.0,
            slopes=None if layer.alibi_slopes is None else layer.alibi_slopes.detach().float().contiguous(),
            sinks=None if layer.sinks is None else layer.sinks.detach().float().contiguous(),
        )

    def rotates(self, *tensors: Tensor) -> bool:
        """Whether `rotate_and_write` knows the layer's rotary embedding and can read these."""
        return (self.layer.rotary is None or not self.layer.rotary.interleaved) and self.kernel.reads(*tensors)

    def rotate_and_write(
        self, step: StepTensors, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, turned: Tensor
    ) -> None:
        """Write the rotated k, and v, to their pages, and the rotated q, contiguous, to `turned`."""
        angles, slots = self.angles(step, positions), step.cache_slots.numpy()
        rotary_and_write(q.numel(), *tokens_at(q, k, v), *angles.arguments, *self.writes_to(turned), slots, *self.sizes)

    def angles(self, step: StepTensors, positions: Tensor | None = None) -> Angles:
        """Cosines and sines of the step's positions, or of these."""
        if self.layer.rotary is None:
            return Angles(None, (0, 0, 0))
        cos, sin = step.cos_sin(self.layer.rotary, torch.float32, positions)
        return Angles((cos, sin), (cos.data_ptr(), sin.data_ptr(), cos.shape[-1]))

    def writes_to(self, turned: Tensor) -> tuple[int, int, int]:
        """Where the rotated q, and k and v, go."""
        return turned.data_ptr(), self.pages.keys, self.pages.values

    def attend(self, step: StepTensors, q: Tensor, out: Tensor | None = None) -> Tensor:
        """Attention over what the pages hold: `(tokens, heads, head_dim)` → `(tokens, heads * head_dim)`."""
        jobs = self.jobs.of(step.sequences, *self.heads)
        return self.kernel(q if self.kernel.reads(q) else q.contiguous(), self.pages, step.pages.numpy(), jobs, out)

    def attend_wanted(self, step: StepTensors, wanted: Wanted, q: Tensor, out: Tensor) -> None:
        """The same for the wanted rows alone, `q` as `rotate_and_write` left it; other rows of `out` become zero."""
        out.zero_()
        if len(wanted.rows):
            counts, firsts = np.ones(len(wanted.rows), np.int64), wanted.rows.numpy().astype(np.int32)
            jobs = make_jobs(wanted.slots, firsts, counts, wanted.lengths, *self.heads)
            self.kernel(q, self.pages, step.pages.numpy(), jobs, out)

    @property
    def heads(self) -> tuple[int, int, int]:
        """How many, how many of keys, and their size."""
        return self.layer.num_heads, self.layer.num_kv_heads, self.layer.head_dim

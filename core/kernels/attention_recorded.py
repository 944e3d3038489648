"""Attention in a recorded step: what stays the same in every step is looked at once, and what the running step brings once for
all layers that share it. A layer's own part is then two calls of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..sequences import StepSequences
from ..step import StepHolder, StepTensors
from ._attention import paged_attention
from ._rows import rotary_and_write
from .attention_compiled import Angles, CompiledAttention, tokens_at
from .compiled import Kernel, prepared

Call = Callable[..., None]


class StepArguments:
    """What the running step brings to layers of one shape and one rotary embedding."""

    turn: Call
    attend: Call
    angles: Angles
    slots: NDArray[np.int64]
    reads: tuple[Any, ...]
    works: tuple[Any, ...]

    def __init__(self) -> None:
        self.of: StepSequences | None = None
        self._prepared: dict[Any, Call] = {}

    def take(self, step: StepTensors, layer: RecordedAttention) -> None:
        """Have the arguments be this step's."""
        attention = layer.attention
        jobs = attention.jobs.of(step.sequences, *attention.heads)
        self.angles, self.slots = attention.angles(step), step.cache_slots.numpy()
        self.reads, self.works = (step.pages.numpy(), jobs.table), attention.kernel.works_on(jobs)
        self.turn = self._form(rotary_and_write, layer.elements, layer.turning(self))
        self.attend = self._form(paged_attention, jobs.work, layer.attending(self))
        self.of = step.sequences

    def _form(self, kernel: Kernel, work: int, args: tuple[Any, ...]) -> Call:
        """The form that suits, as directly as it can be called."""
        form = kernel.form(work)
        if form not in self._prepared:
            found = prepared(form, args)
            if found is form:  # it is compiled when it is first called
                return form
            self._prepared[form] = found
        return self._prepared[form]


class RecordedAttention:
    """A layer's attention over tensors that lie where they lay when it was recorded; it holds none of them.

    Args:
        attention: The layer's.
        step: Where the running step is found.
        q, k, v, turned, out: As `CompiledAttention` takes them.
    """

    def __init__(
        self,
        attention: CompiledAttention,
        step: StepHolder,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        turned: Tensor,
        out: Tensor,
    ) -> None:
        self.attention, self.elements, self._step = attention, q.numel(), step
        # Layers of one shape and one rotary embedding are given the same by a step.
        alike = (*attention.heads, id(attention.layer.rotary))
        self._shared: StepArguments = attention.jobs.recorded.setdefault(alike, StepArguments())
        self._tokens, self._places = tokens_at(q, k, v), attention.writes_to(turned)
        self._reads = attention.kernel.reads_from(turned, attention.pages)
        self._writes = attention.kernel.writes_to(out)

    def __call__(self) -> None:
        step, shared = self._step.current, self._shared
        assert step is not None
        if shared.of is not step.sequences:
            shared.take(step, self)
        shared.turn(*self.turning(shared))
        shared.attend(*self.attending(shared))

    def turning(self, now: StepArguments) -> tuple[Any, ...]:
        """The arguments of `rotary_and_write`."""
        return *self._tokens, *now.angles.arguments, *self._places, now.slots, *self.attention.sizes

    def attending(self, now: StepArguments) -> tuple[Any, ...]:
        """The arguments of `paged_attention`."""
        return *self._reads, *now.reads, *self._writes, *now.works


__all__ = ["RecordedAttention", "StepArguments"]

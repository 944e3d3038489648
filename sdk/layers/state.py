"""Layers that keep a state of fixed size for each sequence, in the place of keys and values of every token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .base import Layer

StateKind = Literal["state-space", "convolution", "linear"]
"""As `Capabilities.attention` spells it."""


@dataclass(frozen=True)
class StateSpec:
    """What one sequence keeps under one name.

    Attributes:
        shape: Of one sequence, however long it is.
        dtype: None: that of the layer's inputs.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None

    def zeros(self, sequences: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Of sequences that begin: `(sequences, *shape)`."""
        return torch.zeros(sequences, *self.shape, dtype=self.dtype or dtype, device=device)

    @property
    def numel(self) -> int:
        """Numbers that one sequence keeps."""
        return torch.Size(self.shape).numel()


class StateLayer(Layer):
    """A layer whose output depends on the past through a state: a hole that an engine fills with a slot for each sequence.

    A subclass says what it keeps (`kind`, `state_specs`) and writes `advance`: some tokens of sequences side by side, and
    their states before, to the output and their states after. In `forward` it calls `recur` where the past comes in, with
    the flat tokens that a model is given; products before and after it stay products over all tokens at once.

    A state begins at zero. The engine cuts a sequence where it likes, computes it anew after a preemption, and gives its
    slot to another one: what `advance` returns for a sequence depends on its tokens and its state alone.
    """

    kind: ClassVar[StateKind]

    def state_specs(self) -> Mapping[str, StateSpec]:
        """Name → what a sequence keeps under it."""
        raise NotImplementedError(f"{type(self).__qualname__} has no state_specs")

    def advance(self, *inputs: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Compute the next tokens of some sequences, and put their new states in the place of the old ones.

        Args:
            *inputs: What `recur` was given, as `(sequences, n, …)`.
            state: Name → `(sequences, *shape)`; `state["name"] = …` replaces it.

        Returns:
            `(sequences, n, …)`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no advance")

    def recur(self, *inputs: Tensor) -> Tensor:
        """`advance` over flat tokens, each sequence with its own state: `(tokens, …)`, any number of them → `(tokens, …)`."""
        out: Tensor = self.reference(*inputs) if self.kernel is None else self.kernel(*inputs)
        return out

    def reference(self, *inputs: Tensor) -> Tensor:
        """One sequence from its beginning."""
        x = inputs[0]
        state = {name: spec.zeros(1, x.dtype, x.device) for name, spec in self.state_specs().items()}
        return self.advance(*(each.unsqueeze(0) for each in inputs), state=state).squeeze(0)

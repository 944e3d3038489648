"""State layers in the engine: each sequence of a step advances from the state in its slot. The specification is
`sdk.layers.StateLayer.reference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from sdk.layers import StateLayer

from ..cache.slots import StateRun
from ..errors import PluginContractError
from ..step import StepHolder


class SlotKernel:
    """Fills one `sdk.layers.StateLayer`.

    Args:
        layer: The layer, whose `advance` is run.
        memory: Name → what the slots keep under it, `(slots, *shape)`.
        step: Where the running step is found.
    """

    def __init__(self, layer: StateLayer, memory: Mapping[str, Tensor], step: StepHolder) -> None:
        self.layer, self.memory, self.step = layer, memory, step

    def __call__(self, *inputs: Tensor) -> Tensor:
        made = [self._advance(run, inputs) for run in self.step.tensors.state_runs]
        return made[0] if len(made) == 1 else torch.cat(made)

    def _advance(self, run: StateRun, inputs: Sequence[Tensor]) -> Tensor:
        """Sequences of one run: their outputs, flat; their states go back to their slots."""
        before = {name: run.read(kept) for name, kept in self.memory.items()}
        state, rows = dict(before), [run.rows(x) for x in inputs]
        out = self.layer.advance(*rows, state=state)
        if out.shape[:2] != rows[0].shape[:2]:
            self._refuse(f"returned {tuple(out.shape)}", f"the first two sizes are {tuple(rows[0].shape[:2])}")
        out = self._apart(out.flatten(0, 1))
        after = {name: self._apart(state[name], before[name]) for name in self.memory}
        for name, kept in self.memory.items():
            due, left = before[name], after[name]
            if left.shape != due.shape or left.dtype != due.dtype:
                said = f"state_specs says {due.dtype} {tuple(due.shape)}"
                self._refuse(f"left state[{name!r}] as {left.dtype} {tuple(left.shape)}", said)
            run.write(kept, left)
        return out

    def _apart(self, made: Tensor, own: Tensor | None = None) -> Tensor:
        """What was made, copied where it lies in slots that are about to be written: a layer may return what it kept, or keep
        under one name what was under another."""
        if own is not None and made.data_ptr() == own.data_ptr():
            return made
        place = made.untyped_storage().data_ptr()
        return made.clone() if any(place == p.untyped_storage().data_ptr() for p in self.memory.values()) else made

    def _refuse(self, did: str, due: str) -> NoReturn:
        raise PluginContractError(f"{type(self.layer).__qualname__}.advance {did}, and {due}")

"""State layers in the engine: each sequence of a step advances from the state in its slot. The specification is
`sdk.layers.StateLayer.reference`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdk.errors import PluginContractError
from sdk.layers import StateLayer

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
        made = []
        for run in self.step.tensors.state_runs:
            state = {name: run.read(kept) for name, kept in self.memory.items()}
            out = self.layer.advance(*(run.rows(x) for x in inputs), state=state)
            for name, kept in self.memory.items():
                self._check(name, kept, state[name], len(run.slots))
                run.write(kept, state[name])
            made.append(out.flatten(0, 1))
        return made[0] if len(made) == 1 else torch.cat(made)

    def _check(self, name: str, kept: Tensor, state: Tensor, sequences: int) -> None:
        due = (sequences, *kept.shape[1:])
        if state.shape != due or state.dtype != kept.dtype:
            raise PluginContractError(
                f"{type(self.layer).__qualname__}.advance left state[{name!r}] as {state.dtype} {tuple(state.shape)}, "
                f"and state_specs says {kept.dtype} {due}"
            )

"""How the checkpoint calls the layers of a model: the names that schemes choose by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from sdk.layers import Layer
from sdk.weights import NameResolver, parameter_slots


def own_names(path: str, layer: Layer) -> tuple[str, ...]:
    """A layer's names in the model: of a fused one those of its parts."""
    parent = path.rpartition(".")[0]
    parts = [part for part in layer.part_rows() if part]
    stacked = sorted({name.rpartition(".")[0] for name in layer.part_tensors()})
    return tuple(
        [f"{parent}.{part}" if parent else part for part in parts] or [f"{path}.{name}" for name in stacked] or [path]
    )


def checkpoint_names(model: nn.Module, tensors: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Path of each layer → how the checkpoint calls it, where its tensors are known.

    Args:
        model: With its own parameters still.
        tensors: Every name in the checkpoint; empty where only a config is at hand.
    """
    resolve, slots = NameResolver(model), parameter_slots(model)
    found: dict[str, list[str]] = {}
    for tensor in tensors:
        source, _, leaf = tensor.rpartition(".")
        if not leaf.startswith("weight"):
            continue
        name = resolve(f"{source}.weight")  # whatever a scheme calls what it stores, the module is the weight's
        slot = slots.get(name) if name is not None else None
        if slot is not None:
            names = found.setdefault(slot.parameter.rpartition(".")[0], [])
            if source not in names:
                names.append(source)
    return {path: tuple(names) for path, names in found.items()}

"""From a checkpoint's names to a model's parameters: name maps, fused parts, and the check that each is filled once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .errors import MissingWeightsError, UnexpectedWeightsError, WeightsError, WeightsShapeError

__all__ = ["WeightMap", "load_weights"]
"""What authors use; the rest is for the engine and the kit."""

LISTED = 20
"""How many names an error lists."""


@dataclass(frozen=True)
class WeightMap:
    """How names in a checkpoint become names in the module that owns the map.

    Attributes:
        rename: (regular expression, replacement) pairs, applied in order with `re.sub`, each to what the one
            before left.
        drop: Regular expressions (`re.search`) of tensors that the model has no use for.
    """

    rename: Sequence[tuple[str, str]] = ()
    drop: Sequence[str] = ()

    def __call__(self, name: str) -> str | None:
        """The module's name for a checkpoint's name; None when it is dropped."""
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        return None if any(re.search(p, name) for p in self.drop) else name


class Slot(NamedTuple):
    """Where one tensor of a checkpoint goes: a parameter, or some rows of it (of a stack of matrices, end to end)."""

    parameter: str
    rows: slice | None


@dataclass
class LoadReport:
    """What loading did: parameters filled, tensors that fit nothing, tensors dropped on purpose."""

    filled: set[str] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def parameter_slots(module: nn.Module) -> dict[str, Slot]:
    """Every name a (renamed) checkpoint tensor may bear → its slot.

    Fused layers answer to their parts' names and to their own; tied parameters to each name they have.
    """
    slots: dict[str, Slot] = {}
    canonical: dict[int, str] = {}
    for path, part in module.named_modules():
        rows = part.part_rows() if hasattr(part, "part_rows") else {}
        zeros = part.part_zeros() if hasattr(part, "part_zeros") else {}
        parent = path.rpartition(".")[0]
        for name, parameter in part.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            target = canonical.setdefault(id(parameter), full)
            slots[full] = Slot(target, None)
            for part_name, part_slice in rows.items():
                if part_slice in zeros.get(name, ()):
                    continue
                slots[".".join(filter(None, (parent, part_name, name)))] = Slot(target, part_slice)
        for tensor_name, (name, part_slice) in part.part_tensors().items() if hasattr(part, "part_tensors") else ():
            target = canonical[id(getattr(part, name))]
            slots[f"{path}.{tensor_name}" if path else tensor_name] = Slot(target, part_slice)
    for full, buffer in module.named_buffers():
        owner, _, name = full.rpartition(".")
        if name not in module.get_submodule(owner)._non_persistent_buffers_set:
            slots[full] = Slot(canonical.setdefault(id(buffer), full), None)
    return slots


class NameResolver:
    """Renames a checkpoint's names for a module whose parts (other plugins' models) have name maps of their own."""

    def __init__(self, module: nn.Module) -> None:
        found = [(path, getattr(part, "weight_map", None)) for path, part in module.named_modules()]
        maps = [(path, weight_map) for path, weight_map in found if isinstance(weight_map, WeightMap)]
        self.maps = sorted(maps, key=lambda item: item[0].count(".") if item[0] else -1)

    def __call__(self, name: str) -> str | None:
        for path, weight_map in self.maps:
            if path and not name.startswith(path + "."):
                continue
            inner = weight_map(name[len(path) + 1 :] if path else name)
            if inner is None:
                return None
            name = f"{path}.{inner}" if path else inner
        return name


def load_weights_report(
    module: nn.Module, weights: Iterable[tuple[str, Tensor]], *, on_filled: Callable[[str], None] | None = None
) -> LoadReport:
    """Copy a checkpoint's tensors into a module's parameters, each exactly once, converted to the parameter's dtype.

    Args:
        module: The module.
        weights: Names, as the checkpoint spells them, and tensors.
        on_filled: Called with the name of each parameter as soon as all of it is filled; it may free it.

    Raises:
        WeightsShapeError: A tensor's shape is not that of its slot.
        WeightsError: A parameter (or part of one) would be filled twice.
    """
    resolve, slots, report = NameResolver(module), parameter_slots(module), LoadReport()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    seen: dict[tuple[str, int | None], str] = {}
    rows_filled = _fill_zeros(module)
    for source, tensor in weights:
        name = resolve(source)
        if name is None:
            report.dropped.append(source)
            continue
        slot = slots.get(name)
        if slot is None:
            report.unexpected.append(source)
            continue
        key = (slot.parameter, slot.rows.start if slot.rows else None)
        if key in seen:
            if seen[key] == name:
                raise WeightsError(f"{source!r} fills {slot.parameter!r}, which another tensor has filled already")
            if not torch.equal(tensors[slot.parameter], tensor.to(tensors[slot.parameter].dtype)):
                raise WeightsError(
                    f"{source!r} differs from {seen[key]!r}, to which config.json ties it; if they are meant to "
                    "differ, set tie_word_embeddings to false"
                )
            continue
        seen[key] = name
        _copy(tensors[slot.parameter], slot, source, tensor)
        full = _rows(tensors[slot.parameter]).shape[0] if tensors[slot.parameter].ndim else 1
        rows_filled[slot.parameter] = rows_filled.get(slot.parameter, 0) + (
            slot.rows.stop - slot.rows.start if slot.rows else full
        )
        if rows_filled[slot.parameter] > full:
            raise WeightsError(f"{slot.parameter!r} is filled both whole and in parts; last by {source!r}")
        if rows_filled[slot.parameter] == full:
            report.filled.add(slot.parameter)
            if on_filled is not None:
                on_filled(slot.parameter)
    return report


@torch.no_grad()
def _fill_zeros(module: nn.Module) -> dict[str, int]:
    """Fill the rows that no checkpoint has; returns how many there are of each such parameter."""
    filled: dict[str, int] = {}
    for path, part in module.named_modules():
        for name, slices in part.part_zeros().items() if hasattr(part, "part_zeros") else ():
            for rows in slices:
                getattr(part, name)[rows].zero_()
            filled[f"{path}.{name}" if path else name] = sum(rows.stop - rows.start for rows in slices)
    return filled


def _rows(parameter: Tensor) -> Tensor:
    """A parameter as rows: a stack of matrices as one tall matrix."""
    return parameter.flatten(0, -2) if parameter.ndim > 2 else parameter


@torch.no_grad()
def _copy(parameter: Tensor, slot: Slot, source: str, tensor: Tensor) -> None:
    target = parameter if slot.rows is None else _rows(parameter)[slot.rows]
    if target.shape != tensor.shape:
        part = f" (rows {slot.rows.start}–{slot.rows.stop})" if slot.rows else ""
        raise WeightsShapeError(
            f"{source!r} has shape {tuple(tensor.shape)}, but {slot.parameter!r}{part} has {tuple(target.shape)}; "
            "the checkpoint and its config.json do not belong together"
        )
    target.copy_(tensor)


def load_weights(module: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
    """`load_weights_report`, with leftovers an error: the default of `Model.load_weights`.

    Returns:
        Names of the parameters that were filled.
    """
    report = load_weights_report(module, weights)
    raise_for_unexpected(module, report.unexpected)
    return report.filled


def raise_for_unexpected(module: nn.Module, unexpected: Sequence[str]) -> None:
    """Raise UnexpectedWeightsError for tensors that fit nothing in the model."""
    if unexpected:
        known = list(parameter_slots(module))
        raise UnexpectedWeightsError(
            f"{len(unexpected)} tensors of the checkpoint fit nothing in {type(module).__qualname__}: "
            + "; ".join(_with_nearest(n, known) for n in unexpected[:LISTED])
            + ". Drop or rename them in the model's weight_map, or pass strict_weights=False to ignore them"
        )


def missing_parameters(module: nn.Module, filled: set[str]) -> list[str]:
    """Parameters (and persistent buffers) of `module` that are not among `filled`."""
    needed = {slot.parameter for slot in parameter_slots(module).values()}
    return sorted(needed - filled)


def raise_for_missing(module: nn.Module, filled: set[str], offered: Iterable[str] = ()) -> None:
    """Raise MissingWeightsError for parameters that the checkpoint left at their initial values.

    Args:
        module: The model.
        filled: What loading filled.
        offered: All names of the checkpoint: of a fused layer only the parts that it lacks are listed, and each name
            with the nearest of those that fit nothing.
    """
    missing = missing_parameters(module, filled)
    if not missing:
        return
    slots, resolve = parameter_slots(module), NameResolver(module)
    given = {resolve(source): source for source in offered}
    names: list[str] = []
    for parameter in missing:
        parts = [n for n, slot in slots.items() if slot.parameter == parameter and slot.rows is not None]
        lacking = [n for n in parts if n not in given]
        names += lacking if len(lacking) < len(parts) else [parameter]
    spare = [source for name, source in given.items() if name is not None and name not in slots]
    raise MissingWeightsError(
        f"the checkpoint lacks {len(names)} tensors of {type(module).__qualname__}: "
        + "; ".join(_with_nearest(n, spare) for n in names[:LISTED])
    )


def _with_nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known[:5000], 1, cutoff=0.8)
    return f"{name} (nearest: {near[0]})" if near else name

"""How the tensors that an HF processor makes fall into items, and how items of several requests go together again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Kind = str


@dataclass(frozen=True)
class MultiModalFieldConfig:
    """Which modality a tensor belongs to, and which part of it each item owns. Made by the class methods."""

    modality: str
    kind: Kind
    slices: tuple[slice, ...] = ()
    count: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def batched(cls, modality: str) -> MultiModalFieldConfig:
        """The first dimension counts the items: item `i` owns `x[i]`."""
        return cls(modality, "batched")

    @classmethod
    def padded(cls, modality: str, shapes: Iterable[Sequence[int]]) -> MultiModalFieldConfig:
        """As `batched`, of items that the HF processor padded to the largest of the prompt, at the end of each dimension:
        item `i` owns the first `shapes[i]` of `x[i]`, whose further dimensions it owns whole."""
        return cls(modality, "batched", shapes=tuple(tuple(int(n) for n in shape) for shape in shapes))

    @classmethod
    def flat(cls, modality: str, slices: Sequence[slice]) -> MultiModalFieldConfig:
        """The items' rows lie end to end: item `i` owns `x[slices[i]]`."""
        return cls(modality, "flat", tuple(slices))

    @classmethod
    def flat_from_sizes(cls, modality: str, sizes: Sequence[int] | Tensor) -> MultiModalFieldConfig:
        """The items' rows lie end to end: item `i` owns `sizes[i]` of them."""
        ends, slices = 0, []
        for size in sizes.tolist() if isinstance(sizes, Tensor) else sizes:
            slices.append(slice(ends, ends + int(size)))
            ends += int(size)
        return cls(modality, "flat", tuple(slices))

    @classmethod
    def shared(cls, modality: str, batch_size: int) -> MultiModalFieldConfig:
        """Every one of `batch_size` items owns the whole value."""
        return cls(modality, "shared", count=batch_size)

    def split(self, value: Any) -> list[Any]:
        """The value's parts, one for each item."""
        if self.kind == "batched" and self.shapes:
            if len(value) != len(self.shapes):
                raise ValueError(f"{len(value)} items, and sizes of {len(self.shapes)}")
            return [_cut(x, shape) for x, shape in zip(value, self.shapes)]
        if self.kind == "batched":
            return list(value)
        if self.kind == "shared":
            return [value] * self.count
        return [value[s] for s in self.slices]

    def join(self, parts: Sequence[Any]) -> Any:
        """Put parts of several items (of any requests) back into the form the model takes.

        Batched parts of different shapes stay a list.
        """
        if self.kind == "shared":
            return parts[0]
        if not isinstance(parts[0], Tensor):
            return list(parts)
        if self.kind == "flat":
            return torch.cat(list(parts))
        same = all(p.shape == parts[0].shape for p in parts)
        return torch.stack(list(parts)) if same else list(parts)


def _cut(x: Any, shape: Sequence[int]) -> Any:
    """The part of a padded item that is its own."""
    kept = x[tuple(slice(n) for n in shape)]
    if tuple(kept.shape[: len(shape)]) != tuple(shape):
        raise ValueError(f"an item of shape {tuple(x.shape)} is smaller than its own part, {tuple(shape)}")
    return kept


@dataclass(frozen=True)
class FieldValue:
    """One item's part of one tensor, and how it joins with others."""

    value: Any
    field: MultiModalFieldConfig


ItemKwargs = Mapping[str, FieldValue]
"""Everything the model needs for one item: argument name → value."""
MultiModalKwargsItems = dict[str, list[ItemKwargs]]
"""Modality → the items."""


def split_into_items(tensors: Mapping[str, Any], fields: Mapping[str, MultiModalFieldConfig]) -> MultiModalKwargsItems:
    """Split what the HF processor made into items, by the fields a plugin declared.

    Raises:
        ValueError: Fields of one modality disagree about how many items there are.
    """
    parts: dict[str, dict[str, list[Any]]] = {}
    for name, field in fields.items():
        if name in tensors:
            parts.setdefault(field.modality, {})[name] = field.split(tensors[name])
    items: MultiModalKwargsItems = {}
    for modality, named in parts.items():
        counts = {name: len(values) for name, values in named.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"fields of {modality} disagree about how many items there are: {counts}")
        items[modality] = [
            {name: FieldValue(values[i], fields[name]) for name, values in named.items()}
            for i in range(next(iter(counts.values())))
        ]
    return items


def join_items(items: Sequence[ItemKwargs]) -> dict[str, Any]:
    """The model's arguments for a batch of items of one modality."""
    return {name: items[0][name].field.join([item[name].value for item in items]) for name in items[0]}

"""`load_weights` as ported models write it: by parameters' own `weight_loader`, with the names of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsShapeError

WeightLoader = Callable[..., None]


@torch.no_grad()
def default_weight_loader(parameter: Tensor, loaded_weight: Tensor) -> None:
    """Copy a tensor of the checkpoint into a parameter of the same shape.

    Raises:
        WeightsShapeError: The shapes differ.
    """
    if parameter.shape != loaded_weight.shape:
        raise WeightsShapeError(
            f"a tensor of shape {tuple(loaded_weight.shape)} for a parameter of shape {tuple(parameter.shape)}"
        )
    parameter.copy_(loaded_weight)


@contextmanager
def noted_loaders(module: nn.Module) -> Iterator[set[str]]:
    """Give every parameter a `weight_loader` for as long as weights are loaded, and note what they filled.

    A fused layer's loader takes the name of the shard as well. A parameter filled in parts counts when all its rows are.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    rows: dict[str, int] = {}
    filled: set[str] = set()

    def noted(loader: WeightLoader) -> WeightLoader:
        def load(parameter: Tensor, loaded_weight: Tensor, *shard: Any) -> None:
            loader(parameter, loaded_weight, *shard)
            name = names[id(parameter)]
            rows[name] = rows.get(name, 0) + (loaded_weight.shape[0] if loaded_weight.ndim else 1)
            if rows[name] >= (parameter.shape[0] if parameter.ndim else 1):
                filled.add(name)

        return load

    marked: list[Any] = []
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            own: Any = parameter
            own.weight_loader = noted(getattr(part, "weight_loader", default_weight_loader))
            marked.append(own)
    try:
        yield filled
    finally:
        for parameter in marked:
            if hasattr(parameter, "weight_loader"):  # a tied one is marked twice
                del parameter.weight_loader

"""From numpy to a device, without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pinned(values: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of `values` that `device` can copy while this thread goes on.

    The memory comes from torch's cache of pinned blocks, which gives none out again before the copy is through.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """`values` on `device`; on a CPU the same memory."""
    return pinned(values, device).to(device, non_blocking=True)


class Places:
    """The arrays of a step on a device. On a GPU each name has memory of its own, the same step after step, so that a graph that
    was captured over it can be run again; on a CPU an array is used as it is.

    Args:
        device: Where.
        room: Entries that a name has room for; a longer array makes its own.
    """

    def __init__(self, device: torch.device, room: int = 0) -> None:
        self.device, self.room = device, room
        self._kept: dict[str, Tensor] = {}

    def put(self, name: str, values: NDArray[Any]) -> Tensor:
        """`values` in the place of this name, in whose stead nothing else may be needed any more."""
        source = pinned(values, self.device)
        if self.device.type == "cpu":
            return source
        place = self._kept.get(name)
        if place is None or len(place) < len(source):
            room = max(self.room, len(source))
            self._kept[name] = place = torch.empty((room, *source.shape[1:]), dtype=source.dtype, device=self.device)
        return place[: len(source)].copy_(source, non_blocking=True)

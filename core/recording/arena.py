"""Memory at fixed addresses for what a recorded step computes on the way."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64


class Full(Exception):
    """A step needs more than there is."""


class Arena:
    """Hands out tensors in one block of memory, and takes their places back when nothing holds them any more.

    The same requests in the same order get the same places: a step that was recorded in an arena may be run again in its memory,
    which recordings share, since steps run one after the other and nothing that a step leaves there is read by the next.

    Args:
        memory: uint8; nothing else may be in it while the step runs.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._taken: dict[int, int] = {}  # first byte → the byte after the last, sorted by the first

    def empty(self, shape: Sequence[int], strides: Sequence[int] | None, dtype: torch.dtype) -> Tensor:
        """A tensor whose elements are whatever was there.

        Args:
            shape: Of the tensor.
            strides: In elements; None: contiguous.
            dtype: Of the elements.

        Raises:
            Full: There is no room.
        """
        size = _span(shape, strides) * dtype.itemsize
        if size == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        first = self._room(size)
        place = self._memory[first : first + size]
        weakref.finalize(place, self._free, first).atexit = False  # torch holds it as long as any view of it is held
        return _tensor(place, shape, strides, dtype)

    def unowned(self, tensor: Tensor) -> Tensor:
        """The same tensor; where it lies in the arena, one that does not hold its place."""
        first = tensor.data_ptr() - self._memory.ctypes.data
        if not 0 <= first < len(self._memory) or tensor.numel() == 0:
            return tensor
        size = _span(tensor.shape, tensor.stride()) * tensor.dtype.itemsize
        return _tensor(self._memory[first : first + size], tensor.shape, tensor.stride(), tensor.dtype)

    def _room(self, size: int) -> int:
        """The first byte of a place of this size, which is taken."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        start = -self._memory.ctypes.data % ALIGNMENT
        edges = [(0, start), *self._taken.items(), (len(self._memory), 0)]
        for (_, end), (following, _) in pairwise(edges):
            if following - end >= size:
                self._taken[end] = end + size
                self._taken = dict(sorted(self._taken.items()))
                return end
        raise Full(f"a step needs more than {len(self._memory)} bytes on the way")

    def _free(self, first: int) -> None:
        del self._taken[first]

    @property
    def num_held(self) -> int:
        """How many tensors hold their places."""
        return len(self._taken)


def _span(shape: Sequence[int], strides: Sequence[int] | None) -> int:
    """How many elements lie from the first to the last, both included."""
    if 0 in shape:
        return 0
    return math.prod(shape) if strides is None else 1 + sum((n - 1) * step for n, step in zip(shape, strides))


def _tensor(
    place: NDArray[np.uint8], shape: Sequence[int], strides: Sequence[int] | None, dtype: torch.dtype
) -> Tensor:
    flat = torch.from_numpy(place).view(dtype)
    return flat.view(tuple(shape)) if strides is None else flat.as_strided(tuple(shape), tuple(strides))

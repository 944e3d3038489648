"""Memory for what is kept between steps: large, zero at first, and the process's own only as far as it was written."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..mapping import mapped

APART = 128 * 2**10
"""Bytes of a tensor for which memory of its own is worth its while."""


def zeroed(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that the system hands out as they are written; `torch.zeros` on a CPU would touch all of them now.

    In small pages: a prompt writes a little of every layer's pool, and reading is as fast.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(mapped(size, huge=False)).view(dtype).view(shape)


def apart(tensor: Tensor) -> Tensor:
    """A copy, for long, in memory of its own, which the system has back as soon as nobody holds it. Among what steps compute and
    free, it would part the free memory into pieces too small for the next step, which then takes more of the system.

    A small tensor as it is, unless it is a view, which would keep all of what it was cut from.
    """
    if tensor.device.type != "cpu" or tensor.nbytes < APART:
        return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    return zeroed(tuple(tensor.shape), tensor.dtype, tensor.device).copy_(tensor)

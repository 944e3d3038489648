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
    return tensor if device.type == "cpu" else tensor.pin_memory()


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """`values` on `device`; on a CPU the same memory."""
    return pinned(values, device).to(device, non_blocking=True)

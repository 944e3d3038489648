"""How oneDNN lays a packed weight out. That is its own affair, so it is looked at before a kernel of ours reads the bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from ._product import BLOCK


def lies_in_blocks(weight: Tensor, address: int, together: int, blocks: Iterable[int]) -> bool:
    """Whether these blocks of a weight lie at `address` as `(output / 64, input / together, 64, together)`, the last block filled
    up with zeros.

    Args:
        weight: `(output, input)`, plain.
        address: Of its packed bytes, as many as all blocks take.
        together: Inputs of one output that lie side by side.
        blocks: Which to look at.
    """
    size = BLOCK * weight.shape[1] * weight.itemsize
    for block in blocks:
        rows = weight[block * BLOCK : (block + 1) * BLOCK]
        filled = functional.pad(rows, (0, 0, 0, BLOCK - len(rows)))
        expected = filled.view(BLOCK, -1, together).transpose(0, 1).contiguous().view(torch.uint8).numpy().tobytes()
        if ctypes.string_at(address + block * size, size) != expected:
            return False
    return True


__all__ = ["lies_in_blocks"]

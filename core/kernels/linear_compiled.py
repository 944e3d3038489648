"""Products of bfloat16 weights by a kernel of our own, which reads them as oneDNN packed them, few rows faster than oneDNN."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from ._lanes import DOTS_BF16
from ._product import BLOCK, packed_product, packed_row
from .compiled import kind_of
from .linear import ROWS_HINT, PackedLinear
from .packed_layout import lies_in_blocks

MOST_ROWS = 512
"""Rows up to which the kernel is the faster one."""


class CompiledPackedLinear(PackedLinear):
    """`x @ W.T + b` with a reordered weight. Shapes: `(..., input) -> (..., output)`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.outputs, self.inputs = weight.shape
        self.address = packed_address(weight.contiguous(), self.packed)
        self.work = self.inputs * self.outputs
        self.kind, self.bias_address = kind_of(torch.bfloat16), bias.data_ptr() if bias is not None else 0
        if bias is not None and bias.dtype is not weight.dtype:
            self.address = None

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x) if x.ndim == 2 else x.numel() // self.inputs
        if self.address is None or not 0 < rows <= MOST_ROWS or x.dtype is not torch.bfloat16:
            return super().__call__(x)
        flat = x if x.ndim == 2 else x.reshape(rows, self.inputs)
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        out = torch.empty(rows, self.outputs, dtype=torch.bfloat16)
        address, shape = flat.data_ptr(), (self.inputs, self.outputs)
        if rows == 1:
            workers = torch.get_num_threads()
            packed_row(self.work, address, self.address, self.bias_address, out.data_ptr(), *shape, workers, self.kind)
        else:
            packed_product(
                self.work,
                address,
                flat.stride(0),
                rows,
                self.address,
                self.bias_address,
                out.data_ptr(),
                *shape,
                self.kind,
            )
        return out if x.ndim == 2 else out.view(*x.shape[:-1], self.outputs)


def packed_address(weight: Tensor, packed: Tensor) -> int | None:
    """Where a packed weight's bytes are, if `packed_product` knows how they lie: oneDNN's layout is its own affair, so it is
    looked at, once for each width in numbers that all differ and in a few blocks of the weight itself."""
    inputs = weight.shape[1]
    if not DOTS_BF16 or weight.dtype is not torch.bfloat16 or inputs % 2:
        return None
    if not hasattr(torch.ops.mkldnn, "data_ptr") or not hasattr(torch.ops.mkldnn, "_nbytes"):
        return None
    if not _width_lies_in_blocks(inputs):
        return None
    last = -(-len(weight) // BLOCK) - 1
    return _address(weight, packed, {0, last // 2, last})


@functools.cache
def _width_lies_in_blocks(inputs: int) -> bool:
    # Neighbours in all four dimensions of the layout differ: the numbers have at most 8 bits, all of which bfloat16 keeps.
    weight = (torch.arange(2 * BLOCK * inputs, dtype=torch.int32) * 37 % 251).to(torch.bfloat16).view(2 * BLOCK, inputs)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
    return _address(weight, packed, {0, 1}) is not None


def _address(weight: Tensor, packed: Tensor, blocks: Iterable[int]) -> int | None:
    """Where a packed weight's bytes are, if these blocks of it lie there as `packed_product` reads them."""
    outputs, inputs = weight.shape
    size = BLOCK * inputs * weight.itemsize
    if int(torch.ops.mkldnn._nbytes(packed)) != -(-outputs // BLOCK) * size:
        return None
    address = int(torch.ops.mkldnn.data_ptr(packed))
    return address if lies_in_blocks(weight, address, 2, blocks) else None

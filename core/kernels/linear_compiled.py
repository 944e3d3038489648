"""Products of bfloat16 weights by kernels of our own, which read them as oneDNN packed them, faster than oneDNN."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from ..step import StepHolder
from ._lanes import DOTS_BF16
from ._product import BLOCK, packed_product, packed_row
from ._product_many import packed_product_many
from ._tile import ROWS
from .compiled import kind_of
from .linear import ROWS_HINT, PackedLinear
from .packed_layout import lies_in_blocks

FEW_ROWS = 64
"""Rows up to which a product is divided by outputs alone."""
NEAR_BYTES, NEAR_ROWS = 3 * 2**19, 132
"""What a job takes of more rows: enough that a weight is used often, and not much more than the second level of caches holds."""
_NO_BIAS = torch.full((BLOCK,), -0.0, dtype=torch.bfloat16)
"""The number that changes none by being added."""


class CompiledPackedLinear(PackedLinear):
    """`x @ W.T + b` with a reordered weight. Shapes: `(..., input) -> (..., output)`.

    Attributes:
        step: Where the running step may say that few rows are wanted; None: all are, always.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outputs, self.inputs = weight.shape
        self.filled = _NO_BIAS if bias is None else torch.nn.functional.pad(bias, (0, -self.outputs % BLOCK))
        super().__init__(weight, None if bias is None else self.filled[: self.outputs])
        self.step: StepHolder | None = None
        alike = self.filled.dtype is weight.dtype
        self.address = packed_address(weight.contiguous(), self.packed) if alike else None
        self.work = self.inputs * self.outputs
        self.kind, self.bias_address = kind_of(torch.bfloat16), 0 if bias is None else self.filled.data_ptr()

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x) if x.ndim == 2 else x.numel() // self.inputs
        if self.address is None or rows == 0 or x.dtype is not torch.bfloat16:
            return super().__call__(x)
        wanted = None if self.step is None else self.step.wanted_rows(x)
        if wanted is not None:
            made = torch.zeros(rows, self.outputs, dtype=torch.bfloat16)
            made[wanted] = self(x[wanted])
            return made
        flat = x if x.ndim == 2 else x.reshape(rows, self.inputs)
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        out = torch.empty(rows, self.outputs, dtype=torch.bfloat16)
        address, shape = flat.data_ptr(), (self.inputs, self.outputs)
        if rows == 1:
            workers = torch.get_num_threads()
            packed_row(self.work, address, self.address, self.bias_address, out.data_ptr(), *shape, workers, self.kind)
        elif rows <= FEW_ROWS:
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
        else:
            self._many(flat, out, self.address)
        return out if x.ndim == 2 else out.view(*x.shape[:-1], self.outputs)

    def _many(self, x: Tensor, out: Tensor, weight: int) -> None:
        rows, counter = len(x), torch.empty(1, dtype=torch.int64)
        packed_product_many(
            self.work, x.data_ptr(), x.stride(0), rows, weight, self.filled.data_ptr(), 2 if self.bias_address else 0,
            out.data_ptr(), self.inputs, self.outputs, rows_near(rows, self.inputs), counter.data_ptr(),
            torch.get_num_threads(), self.kind,
        )  # fmt: skip


def rows_near(rows: int, inputs: int) -> int:
    """How many of so many rows a job takes: all jobs about as many, in whole tiles."""
    most = max(4 * ROWS, min(NEAR_ROWS, NEAR_BYTES // (2 * inputs)) // ROWS * ROWS)
    groups = -(-rows // most)
    return -(-rows // (groups * ROWS)) * ROWS


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

"""int8 linear layers on a CPU: oneDNN multiplies integers; a row by itself has a kernel that reads the same packed weight.

The specification is `sdk.quantization.int8`. Every step after the sums of integers is done in the same order for any number of
rows, so a row's result does not depend on what shares its batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from sdk.layers.linear import Linear
from sdk.quantization import Int8

from ._int8 import BLOCK, HAS_DOTS, one_row, put_scales, quantize_rows
from .compiled import kind_of
from .packed_layout import lies_in_blocks
from .weight_memory import in_huge_pages

BYTE, WHOLE, REAL = np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.float32)
_BITS = {torch.bfloat16: np.empty(0, np.uint16), torch.float32: np.empty(0, np.uint32)}
ZERO = 128
"""What stands for zero in a row's unsigned bytes: oneDNN has fast products of unsigned and signed bytes only."""
CHUNK = 512
"""Rows multiplied at a time: their float32 sums stay in a cache."""


def can_multiply() -> bool:
    """Whether this build of torch has oneDNN's products of integers."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.onednn, name) for name in ("qlinear_prepack", "qlinear_pointwise")
    )


class Int8Linear:
    """Fills one linear layer whose method is `Int8`. Shapes: `(..., input) -> (..., output)`.

    Where the method leaves inputs as they are, they are split into two bytes: 16 bits a row, with the same products of integers.
    """

    def __init__(self, layer: Linear, method: Int8, dtype: torch.dtype) -> None:
        weight, scale = layer.weight.data, layer.weight_scale
        assert isinstance(scale, Tensor)
        self.outputs, self.inputs = weight.shape
        self.dtype, self.kind, self.bits = dtype, kind_of(dtype), _BITS[dtype]
        self.shift, self.split = 32 - 8 * dtype.itemsize, not method.quantize_inputs
        self.scale = scale.reshape(-1).float().contiguous()
        self.bias = layer.bias.data.float() if layer.bias is not None else None
        self.bias_address = self.bias.data_ptr() if self.bias is not None else 0
        self.packed, self._memory = in_huge_pages(torch.ops.onednn.qlinear_prepack(weight.contiguous(), None))
        self.weight_zero = torch.zeros(self.outputs, dtype=torch.int64)
        self.product = torch.ops.onednn.qlinear_pointwise.default
        self.address = _address(weight, self.packed)
        # torch's sum takes ten times as long, and four times the weight's room.
        sums = weight.numpy().sum(axis=1, dtype=np.int32)
        self.row_zero = torch.from_numpy(sums * ZERO)

    def __call__(self, x: Tensor) -> Tensor:
        assert x.dtype == self.dtype, "a model's products are in its own dtype"
        if x.ndim == 2 and len(x) == 1 and self.address is not None and x.stride(1) == 1:
            out = torch.empty(1, self.outputs, dtype=self.dtype)
            self._one(x, out, self.address)
            return out
        rows = x.reshape(-1, self.inputs)
        if rows.stride(-1) != 1:
            rows = rows.contiguous()
        out = torch.empty(len(rows), self.outputs, dtype=self.dtype)
        if len(rows) == 1 and self.address is not None:
            self._one(rows, out, self.address)
        else:
            for first in range(0, len(rows), CHUNK):
                self._many(rows[first : first + CHUNK], out[first : first + CHUNK])
        return out.view(*x.shape[:-1], self.outputs)

    def _one(self, row: Tensor, out: Tensor, weight: int) -> None:
        room = torch.empty(2 * self.inputs, dtype=torch.uint8)
        one_row(
            self.inputs * self.outputs, row.data_ptr(), self.inputs, self.split, room.data_ptr(), weight,
            self.row_zero.data_ptr(), self.scale.data_ptr(), self.bias_address, out.data_ptr(), self.outputs, self.shift,
            self.kind, self.bits, BYTE, WHOLE, REAL,
        )  # fmt: skip

    def _many(self, rows: Tensor, out: Tensor) -> None:
        count, n = rows.shape
        high = torch.empty(count, n, dtype=torch.uint8)
        low = torch.empty_like(high) if self.split else None
        scales = torch.empty(count, dtype=torch.float32)
        quantize_rows(
            rows.numel(), rows.data_ptr(), rows.stride(0), count, n, high.data_ptr(),
            low.data_ptr() if low is not None else 0, scales.data_ptr(), self.shift, self.kind, self.bits, BYTE, REAL,
        )  # fmt: skip
        sums, rest = self._sums(high), self._sums(low) if low is not None else None
        put_scales(
            out.numel(), sums.data_ptr(), rest.data_ptr() if rest is not None else 0, scales.data_ptr(), self.bias_address,
            out.data_ptr(), count, self.outputs, self.kind, REAL,
        )  # fmt: skip

    def _sums(self, quantized: Tensor) -> Tensor:
        """Products of integers times the weight's scale, float32."""
        made: Tensor = self.product(
            quantized, 1.0, ZERO, self.packed, self.scale, self.weight_zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return made


def int8_kernel(layer: Linear, dtype: torch.dtype) -> Int8Linear | None:
    """A compiled form of a quantized layer, whose plain weight it frees; None: its method computes the products.

    Args:
        layer: A layer whose weights are loaded.
        dtype: Of the model.
    """
    method = layer.quant_method
    if not isinstance(method, Int8) or layer.weight.device.type != "cpu" or not can_multiply():
        return None
    if not method.quantize_inputs and dtype is not torch.bfloat16:
        return None  # 16 bits are more than bfloat16 has, but not enough for float32
    kernel = Int8Linear(layer, method, dtype)
    layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
    return kernel


def _address(weight: Tensor, packed: Tensor) -> int | None:
    """Where the packed weight's bytes are, if the kernel for one row knows how they lie; None: oneDNN serves one row too.

    oneDNN's layout is its own affair, so it is looked at: once for each width in numbers that all differ, and in a few blocks of
    the weight itself.
    """
    outputs, inputs = weight.shape
    if not HAS_DOTS or outputs % BLOCK or inputs % BLOCK or not hasattr(torch.ops.mkldnn, "data_ptr"):
        return None
    if not _width_lies_in_blocks(inputs):
        return None
    last = outputs // BLOCK - 1
    return _address_of_blocks(weight, packed, {0, last // 2, last})


@functools.cache
def _width_lies_in_blocks(inputs: int) -> bool:
    # Every byte differs from its neighbours in all four dimensions of the layout.
    weight = (torch.arange(2 * BLOCK * inputs, dtype=torch.int32) * 37 % 251 - 125).to(torch.int8).view(-1, inputs)
    return _address_of_blocks(weight, torch.ops.onednn.qlinear_prepack(weight, None), {0, 1}) is not None


def _address_of_blocks(weight: Tensor, packed: Tensor, blocks: Iterable[int]) -> int | None:
    """Where a packed weight's bytes are, if these blocks of it lie there as the kernel reads them."""
    address = int(torch.ops.mkldnn.data_ptr(packed))
    if address % 64 or int(torch.ops.mkldnn._nbytes(packed)) < weight.numel():
        return None
    return address if lies_in_blocks(weight, address, 4, blocks) else None

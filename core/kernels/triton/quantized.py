"""Products with weights in int8: of integers, each row of the input quantized as it comes, or of the model's dtype.

The specification is `sdk.quantization.int8`. Sums of integers are exact, and what follows them stands in its order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdk.layers.linear import Linear
from sdk.quantization import Int8

from .common import padded, warps_for

SMALLEST_ROW = tl.constexpr(2.0**-100)
WIDTH = tl.constexpr(2048)
"""Elements of a row that are looked at at a time."""


@triton.jit
def round_even(x):
    """In a kernel: to the nearest integer, halves to the even one."""
    up = tl.floor(x + 0.5)
    odd = up - 2.0 * tl.floor(up * 0.5)
    return tl.where(x + 0.5 == up, up - odd, up)


@triton.jit
def quantize(x, out, scales, n, stride):
    """Programs: rows. A row with NaN or infinity gets a scale that is none either."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((WIDTH,), dtype=tl.float32)
    wrong = tl.zeros((WIDTH,), dtype=tl.float32)
    for start in range(0, n, WIDTH):
        i = start + tl.arange(0, WIDTH)
        value = tl.load(x + row * stride + i, mask=i < n, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.where(value == value, tl.abs(value), 0.0))
        wrong += tl.where(value == value, 0.0, value)
    top = tl.maximum(tl.max(largest, 0), SMALLEST_ROW) + tl.sum(wrong, 0)
    inverse = 127.0 / top
    for start in range(0, n, WIDTH):
        i = start + tl.arange(0, WIDTH)
        value = tl.load(x + row * stride + i, mask=i < n, other=0.0).to(tl.float32) * inverse
        value = tl.where(value == value, value, 0.0)
        tl.store(out + row * n + i, round_even(value).to(tl.int8), mask=i < n)
    tl.store(scales + row, top / 127.0)


@triton.jit
def multiply(x, weight, scale, row_scales, bias, out, rows, outputs, n, x_row, ROWS: tl.constexpr, OUTPUTS: tl.constexpr,
             DEPTH: tl.constexpr, INTEGERS: tl.constexpr, BIAS: tl.constexpr):  # fmt: skip
    """Programs: (tile of outputs, tile of rows).

    `weight` is `(outputs, n)` int8 with a `scale` for each output; with `INTEGERS` `x` is int8 too, with `row_scales`.
    """
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rs, os = tl.load(scale + o, mask=o < outputs, other=0.0), o.to(tl.int64)
    total = tl.zeros((ROWS, OUTPUTS), dtype=tl.int32 if INTEGERS else tl.float32)
    for start in range(0, n, DEPTH):
        i = start + tl.arange(0, DEPTH)
        a = tl.load(
            x + r.to(tl.int64)[:, None] * x_row + i[None, :], mask=(r < rows)[:, None] & (i < n)[None, :], other=0
        )
        w = tl.load(weight + os[None, :] * n + i[:, None], mask=(o < outputs)[None, :] & (i < n)[:, None], other=0)
        if INTEGERS:
            total += tl.dot(a, w, out_dtype=tl.int32)
        else:
            total += tl.dot(a, (w.to(tl.float32) * rs[None, :]).to(a.dtype), input_precision="ieee")
    made = total.to(tl.float32)
    if INTEGERS:
        made = made * rs[None, :] * tl.load(row_scales + r, mask=r < rows, other=0.0)[:, None]
    if BIAS:
        made += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    place = r.to(tl.int64)[:, None] * outputs + o[None, :]
    tl.store(out + place, made.to(out.dtype.element_ty), mask=(r < rows)[:, None] & (o < outputs)[None, :])


class TritonInt8Linear:
    """Fills one linear layer whose method is `Int8`. Shapes: `(..., input) -> (..., output)`."""

    def __init__(self, layer: Linear, method: Int8) -> None:
        scale = layer.weight_scale
        assert isinstance(scale, Tensor)
        self.weight, self.scale, self.bias = layer.weight.data, scale.data.reshape(-1).float(), layer.bias
        self.integers = method.quantize_inputs

    def __call__(self, x: Tensor) -> Tensor:
        outputs, n = self.weight.shape
        lines = x.reshape(-1, n)
        lines = lines if lines.stride(-1) == 1 else lines.contiguous()
        rows, scales = len(lines), None
        out = x.new_empty(rows, outputs)
        if rows:
            if self.integers:
                whole = torch.empty(rows, n, dtype=torch.int8, device=x.device)
                scales = torch.empty(rows, dtype=torch.float32, device=x.device)
                quantize[(rows,)](lines, whole, scales, n, lines.stride(0), num_warps=warps_for(n))
                lines = whole
            tile, wide = min(64, padded(rows, 16)), x.element_size() > 2 and not self.integers
            multiply[(-(-outputs // 64), -(-rows // tile))](
                lines, self.weight, self.scale, scales, self.bias, out, rows, outputs, n, lines.stride(0), ROWS=tile, OUTPUTS=64,
                DEPTH=32 if wide else 64, INTEGERS=self.integers, BIAS=self.bias is not None, num_warps=4,
            )  # fmt: skip
        return out.view(*x.shape[:-1], outputs)

"""Compiled parts of int8 products: rows quantized, one row against a packed weight, scales put on what oneDNN made.

Nothing is contracted or reordered, so that they make the very bits that `sdk.quantization.int8` says.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiled import _bits_to_float, at, exact_kernel, load, store

BLOCK = 64
"""Outputs that a packed weight holds side by side: `(output / 64, input / 4, 64, 4)`."""
HAS_DOTS = numba.config.CPU_NAME is None and bool(llvm.get_host_cpu_features().get("avx512vnni"))
"""Whether this machine multiplies four bytes and adds them up in a step, sixteen times side by side."""
_AHEAD = 4096
"""Bytes before its use that a weight is asked for."""
_SMALLEST = 0x0D800000
"""2 to the power of -100, as bits: a row that is nowhere larger counts as zero."""


@intrinsic
def _add_dots(context: Any, weights: Any, row: Any, groups: Any, sums: Any) -> Any:
    """In a kernel: products of a quantized row and 64 outputs of a packed weight, as int32 to `sums`; all are addresses."""

    def codegen(ctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        weight, x, count, out = args
        word, vector = ir.IntType(32), ir.VectorType(ir.IntType(32), 16)
        dot = builder.module.globals.get("llvm.x86.avx512.vpdpbusd.512") or ir.Function(
            builder.module, ir.FunctionType(vector, [vector] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )
        prefetch = builder.module.globals.get("llvm.prefetch.p0") or ir.Function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word]),
            "llvm.prefetch.p0",
        )

        def vector_at(address: Any, offset: int) -> Any:
            return builder.inttoptr(builder.add(address, address.type(offset)), vector.as_pointer())

        totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * 16)) for _ in range(4)]
        with cgutils.for_range(builder, count) as loop:
            four = builder.load(builder.inttoptr(builder.add(x, builder.shl(loop.index, x.type(2))), word.as_pointer()))
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), four, word(0))
            spread = builder.shuffle_vector(one, one, ir.Constant(vector, [0] * 16))
            place = builder.add(weight, builder.shl(loop.index, weight.type(8)))
            for part, total in enumerate(totals):
                ahead = builder.inttoptr(builder.add(place, place.type(_AHEAD + 64 * part)), ir.IntType(8).as_pointer())
                builder.call(prefetch, [ahead, word(0), word(3), word(1)])
                bytes_ = builder.load(vector_at(place, 64 * part), align=64)
                builder.store(builder.call(dot, [builder.load(total), spread, bytes_]), total)
        for part, total in enumerate(totals):
            builder.store(builder.load(total), vector_at(out, 64 * part), align=4)
        return ctx.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64, types.int64), codegen


@numba.njit(inline="always")
def _largest(words: Any, first: int, n: int, shift: int) -> Any:
    """The largest magnitude of a row; NaN or infinity where the row holds one."""
    # As integers, magnitudes are in the same order as the numbers, and NaN is the largest.
    mask = (np.uint32(1) << np.uint32(31 - shift)) - np.uint32(1)
    largest = np.uint32(_SMALLEST) >> np.uint32(shift)
    for i in range(n):
        largest = max(largest, np.uint32(words[first + i]) & mask)
    return _bits_to_float(largest << np.uint32(shift))


@numba.njit(inline="always")
def _quantize(xs: Any, first: int, n: int, largest: Any, high: Any, low: Any, split: bool, to: int) -> Any:
    """One row as bytes, each the integer + 128; returns what one step is worth.

    Where they are split the integers have 16 bits: they are `256 * high + low`.
    """
    if split:
        inverse = np.float32(32512.0) / largest
        for i in range(n):
            value = np.int32(np.rint(load(xs, first + i) * inverse))
            upper = (value + np.int32(128)) >> np.int32(8)
            high[to + i] = np.uint8(upper + np.int32(128))
            low[to + i] = np.uint8(value - (upper << np.int32(8)) + np.int32(128))
        return largest / np.float32(32512.0)
    inverse = np.float32(127.0) / largest
    for i in range(n):
        high[to + i] = np.uint8(np.int32(np.rint(load(xs, first + i) * inverse)) + np.int32(128))
    return largest / np.float32(127.0)


@exact_kernel
def quantize_rows(x: int, stride: int, rows: int, n: int, high: int, low: int, scales: int, shift: int, kind: Any, word: Any,
                  byte: Any, real: Any) -> None:  # fmt: skip
    """Rows as unsigned bytes with 128 for zero, and the scale of each.

    `low`: where the lower halves of 16 bits go; 0: there are none. `shift`: bits that the numbers lack to 32; `kind` and
    `word`: what they are read as, and as integers.
    """
    xs, words, hs, ls, ss = at(x, kind), at(x, word), at(high, byte), at(low, byte), at(scales, real)
    for row in prange(rows):
        largest = _largest(words, row * stride, n, shift)
        # `ss[row] = …` would be lost in the form for several threads: what is written at the loop's own index alone is taken
        # for an array that nobody reads.
        store(ss, row, _quantize(xs, row * stride, n, largest, hs, ls, low != 0, row * n))


@exact_kernel
def put_scales(high: int, low: int, scales: int, bias: int, out: int, rows: int, n: int, kind: Any, real: Any) -> None:
    """`out = (256 * high + low) * scale of the row + bias`; `out = high * …` where `low` is 0, no bias where its address is 0."""
    hs, ls, ss, bs, os = at(high, real), at(low, real), at(scales, real), at(bias, real), at(out, kind)
    for row in prange(rows):
        scale, first = ss[row], row * n
        for i in range(n):
            made = hs[first + i]
            if low != 0:
                made = made * np.float32(256.0) + ls[first + i]
            made *= scale
            if bias != 0:
                made += bs[i]
            store(os, first + i, made)


@exact_kernel
def one_row(x: int, n: int, split: bool, weight: int, zero: int, weight_scale: int, bias: int, out: int, outputs: int,
            shift: int, kind: Any, word: Any, whole: Any, real: Any) -> None:  # fmt: skip
    """The product of one row and a packed weight, which is read from memory once.

    `zero`: what 128 in every place of the row adds to each output, int32. `split`: the row is quantized to 16 bits.
    """
    high, low = np.empty(n, dtype=np.uint8), np.empty(n if split else 0, dtype=np.uint8)
    scale = _quantize(at(x, kind), 0, n, _largest(at(x, word), 0, n, shift), high, low, split, 0)
    upper, lower = high.ctypes.data, low.ctypes.data
    zs, ws, bs, os = at(zero, whole), at(weight_scale, real), at(bias, real), at(out, kind)
    for block in prange(outputs // BLOCK):
        sums, rest = np.empty(BLOCK, dtype=np.int32), np.empty(BLOCK, dtype=np.int32)
        first = block * BLOCK
        _add_dots(weight + first * n, upper, n // 4, sums.ctypes.data)
        if split:  # the block is in a cache now
            _add_dots(weight + first * n, lower, n // 4, rest.ctypes.data)
        for i in range(BLOCK):
            made = np.float32(np.int32(sums[i] - zs[first + i])) * ws[first + i]
            if split:
                made = made * np.float32(256.0) + np.float32(np.int32(rest[i] - zs[first + i])) * ws[first + i]
            made *= scale
            if bias != 0:
                made += bs[first + i]
            store(os, first + i, made)

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

from ._tile import ask_for, stack_room
from .compiled import _bits_to_float, at, exact_kernel, load, store

BLOCK = 64
"""Outputs that a packed weight holds side by side: `(output / 64, input / 4, 64, 4)`."""
HAS_DOTS = numba.config.CPU_NAME is None and bool(llvm.get_host_cpu_features().get("avx512vnni"))
"""Whether this machine multiplies four bytes and adds them up in a step, sixteen times side by side."""
_AHEAD = 4096
_DOT = "llvm.x86.avx512.vpdpbusd.512"
_SMALLEST = 0x0D800000
"""2 to the power of -100, as bits: a row that is nowhere larger counts as zero."""


def _dots(rows: int) -> Any:
    """Make a function for kernels: the products of quantized rows and a block of a packed weight, as int32 `(rows, 64)`."""

    @intrinsic
    def dots(context: Any, weight: Any, first: Any, second: Any, groups: Any, sums: Any) -> Any:
        def codegen(ctx: Any, builder: Any, sig: Any, args: Any) -> Any:
            weight, first, second, groups, sums = args
            word, vector = ir.IntType(32), ir.VectorType(ir.IntType(32), 16)
            dot = builder.module.globals.get(_DOT) or ir.Function(
                builder.module, ir.FunctionType(vector, [vector] * 3), _DOT
            )

            def address(base: Any, offset: Any, kind: Any) -> Any:
                return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

            totals = [
                [cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * 16)) for _ in range(4)]
                for _ in range(rows)
            ]
            with cgutils.for_range(builder, groups) as loop:
                spread = []
                for row in (first, second)[:rows]:
                    four = builder.load(address(row, builder.shl(loop.index, row.type(2)), word))
                    one = builder.insert_element(ir.Constant(vector, ir.Undefined), four, word(0))
                    spread.append(builder.shuffle_vector(one, one, ir.Constant(vector, [0] * 16)))
                line = builder.add(weight, builder.shl(loop.index, weight.type(8)))
                for place in range(4):
                    ask_for(builder, builder.add(line, weight.type(_AHEAD + 64 * place)), 0)
                    read = builder.load(address(line, weight.type(64 * place), vector), align=64)
                    for row in range(rows):
                        total = totals[row][place]
                        builder.store(builder.call(dot, [builder.load(total), spread[row], read]), total)
            for i, total in enumerate(total for row in totals for total in row):
                builder.store(builder.load(total), address(sums, sums.type(64 * i), vector), align=4)
            return ctx.get_dummy_value()

        return types.none(*[types.int64] * 5), codegen

    return dots


_whole_row, _split_row = _dots(1), _dots(2)
_sums = stack_room(2 * 4 * BLOCK)
"""For the sums of a block, or of a row in two halves, int32."""


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
def one_row(x: int, n: int, split: bool, room: int, weight: int, zero: int, weight_scale: int, bias: int, out: int,
            outputs: int, shift: int, kind: Any, word: Any, byte: Any, whole: Any, real: Any) -> None:  # fmt: skip
    """The product of one row and a packed weight, which is read from memory once, past what the caches hold.

    `room`: for the row's bytes, `n`, or twice as many where `split`: then it is quantized to 16 bits. `zero`: what 128 in every
    place of the row adds to each output, int32.
    """
    # Room that is given: of an array that is made here and known by its address, numba would free the memory before the loop.
    upper, lower = room, room + n
    scale = _quantize(at(x, kind), 0, n, _largest(at(x, word), 0, n, shift), at(upper, byte), at(lower, byte), split, 0)
    zs, ws, bs, os = at(zero, whole), at(weight_scale, real), at(bias, real), at(out, kind)
    for block in prange(outputs // BLOCK):
        first, made = block * BLOCK, _sums()
        place, sums = weight + first * n, at(made, whole)
        if split:
            _split_row(place, upper, lower, n // 4, made)
        else:
            _whole_row(place, upper, 0, n // 4, made)
        for i in range(BLOCK):
            value = np.float32(np.int32(sums[i] - zs[first + i])) * ws[first + i]
            if split:
                rest = np.float32(np.int32(sums[BLOCK + i] - zs[first + i])) * ws[first + i]
                value = value * np.float32(256.0) + rest
            value *= scale
            if bias != 0:
                value += bs[first + i]
            store(os, first + i, value)

"""Small dense products with their sums held in registers, and the reorderings of their operands. Made of LLVM instructions.

A *word* is 32 bits: a pair of bfloat16 that lie side by side, or one float32. Products are of words: where the machine multiplies
pairs of bfloat16 (`DOTS_BF16`) a word is two terms of the sum, else one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._lanes import (
    DOTS_BF16,
    FLOATS,
    HALVES,
    WIDE,
    WIDTH,
    WORDS,
    BFloat,
    call,
    constant,
    fma,
    load_vector,
    narrow,
    pointer,
    splat_value,
    store_vector,
    widened,
)

ROWS = 6
"""Rows of the largest tile."""
COLUMNS = 4 if WIDE else 1
"""Vectors of columns of a tile: with `ROWS` of sums each, those of one operand and one of the other, they fit the registers."""

I32, I64 = ir.IntType(32), ir.IntType(64)
PAIRS = ir.VectorType(BFloat(), 2 * WIDTH)


def _times(builder: Any, total: Any, a: Any, b: Any, *, paired: bool) -> Any:
    """`total + a · b` for words in each lane."""
    if not paired:
        return fma(builder, builder.bitcast(a, FLOATS), builder.bitcast(b, FLOATS), total)
    a, b = builder.bitcast(a, PAIRS), builder.bitcast(b, PAIRS)
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, total, a, b)


def ask_for(builder: Any, address: Any, level: int) -> None:
    """Begin to bring a cache line, to the first level of caches (3), the second (2), or to be used once and kept nowhere (0)."""
    where = builder.inttoptr(address, ir.IntType(8).as_pointer())
    module = builder.module
    declared = module.globals.get("llvm.prefetch.p0")
    if declared is None:
        kind = ir.FunctionType(ir.VoidType(), [where.type, I32, I32, I32])
        declared = ir.Function(module, kind, "llvm.prefetch.p0")
    builder.call(declared, [where, I32(0), I32(level), I32(1)])


class _Ahead(NamedTuple):
    """What a tile asks for in every step: so many cache lines from an address, which moves on by `stride`, to this level."""

    address: Any
    stride: Any
    lines: int
    level: int


def _summed(builder: Any, totals: list[Any], rows: int, a: Any, a_stride: Any, b: Any, b_stride: Any, depth: Any, ahead: _Ahead,
            *, paired: bool) -> list[Any]:  # fmt: skip
    """`totals`, row by row, with `a @ b` added: the loop over `depth` words."""
    columns = len(totals) // rows
    before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(body)
    builder.position_at_end(body)
    step = builder.phi(I64)
    step.add_incoming(I64(0), before)
    sums = [builder.phi(FLOATS) for _ in totals]
    for phi, found in zip(sums, totals):
        phi.add_incoming(found, before)
    line = builder.add(b, builder.mul(b_stride, step))
    asked = builder.add(ahead.address, builder.mul(ahead.stride, step))
    for j in range(ahead.lines):
        ask_for(builder, builder.add(asked, I64(64 * j)), ahead.level)
    rights = [load_vector(builder, builder.add(line, I64(4 * WIDTH * j)), WORDS, 4) for j in range(columns)]
    at = builder.add(a, builder.mul(step, I64(4)))
    made = []
    for i in range(rows):
        word = builder.load(pointer(builder, builder.add(at, builder.mul(a_stride, I64(i))), I32), align=2)
        left = splat_value(builder, word)
        for j in range(columns):
            made.append(_times(builder, sums[i * columns + j], left, rights[j], paired=paired))
    for phi, found in zip(sums, made):
        phi.add_incoming(found, builder.block)
    following = builder.add(step, I64(1))
    step.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, depth), body, after)
    builder.position_at_end(after)
    return made


def tile_product(rows: int, columns: int, *, accumulate: bool, asks: int = 0, level: int = 3) -> Any:
    """The product of one tile: `(rows, depth) @ (depth, columns * 16)`, into float32.

    In a kernel: `(a, a_stride, b, b_stride, c, c_stride, depth, shrink, ask, ask_stride, form)`; addresses, strides from row to
    row in bytes, `depth` in words. With `accumulate` the product is added to what is there times `shrink[row]`. In every step
    `asks` cache lines from `ask` are asked for, which a later tile will need, to this level of caches.
    """

    @intrinsic
    def product(context: Any, a: Any, a_stride: Any, b: Any, b_stride: Any, c: Any, c_stride: Any, depth: Any, shrink: Any,
                ask: Any, ask_stride: Any, form: Any) -> Any:  # fmt: skip
        paired = form.dtype == types.uint16
        if paired and not DOTS_BF16:
            return None

        def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, a_stride, b, b_stride, c, c_stride, depth, shrink, ask, ask_stride, _ = args
            places = {}
            totals = []
            for i in range(rows):
                line = builder.add(c, builder.mul(c_stride, I64(i)))
                factor = None
                if accumulate:
                    factor = splat_value(
                        builder, builder.load(pointer(builder, builder.add(shrink, I64(4 * i)), ir.FloatType()))
                    )
                for j in range(columns):
                    places[i, j] = builder.add(line, I64(4 * WIDTH * j))
                    found = constant(0.0)
                    if factor is not None:
                        found = builder.fmul(load_vector(builder, places[i, j], FLOATS, 4), factor)
                    totals.append(found)
            ahead = _Ahead(ask, ask_stride, asks, level)
            made = _summed(builder, totals, rows, a, a_stride, b, b_stride, depth, ahead, paired=paired)
            for (i, j), place in places.items():
                store_vector(builder, made[i * columns + j], place, 4)
            return ctx.get_dummy_value()

        return types.void(*[types.int64] * 10, form), codegen

    return product


def tile_rounded(rows: int, columns: int) -> Any:
    """The same product, into bfloat16: a bias is added to the sums, and they are rounded as they leave the registers.

    In a kernel: `(a, a_stride, b, b_stride, out, out_stride, count, depth, bias, ask, ask_stride, form)`; the first `count`
    columns are written; `bias` is the address of `columns * 16` bfloat16. In every step a line from `ask` is asked for.
    """

    @intrinsic
    def product(context: Any, a: Any, a_stride: Any, b: Any, b_stride: Any, out: Any, out_stride: Any, count: Any, depth: Any,
                bias: Any, ask: Any, ask_stride: Any, form: Any) -> Any:  # fmt: skip
        if form.dtype != types.uint16 or not DOTS_BF16:
            return None

        def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, a_stride, b, b_stride, out, out_stride, count, depth, bias, ask, ask_stride, _ = args
            zeros, ahead = [constant(0.0)] * (rows * columns), _Ahead(ask, ask_stride, 1, 2)
            made = _summed(builder, zeros, rows, a, a_stride, b, b_stride, depth, ahead, paired=True)
            most = splat_value(builder, builder.trunc(count, I32))
            for j in range(columns):
                more = widened(builder, load_vector(builder, builder.add(bias, I64(2 * WIDTH * j)), HALVES, 2))
                kept = builder.icmp_signed("<", ir.Constant(WORDS, [WIDTH * j + i for i in range(WIDTH)]), most)
                for i in range(rows):
                    place = builder.add(out, builder.add(builder.mul(out_stride, I64(i)), I64(2 * WIDTH * j)))
                    _store_some(builder, narrow(builder, builder.fadd(made[i * columns + j], more)), place, kept)
            return ctx.get_dummy_value()

        return types.void(*[types.int64] * 11, form), codegen

    return product


def _store_some(builder: Any, value: Any, address: Any, kept: Any) -> None:
    """Those of 16 halves whose lane is to be kept."""
    place = pointer(builder, address, HALVES)
    call(builder, f"llvm.masked.store.v{WIDTH}i16.p0", ir.VoidType(), value, place, I32(2), kept)


def _exchange(builder: Any, lines: list[Any], step: int) -> None:
    """One stage of turning a square: blocks of `step` beside the diagonal change places."""
    low = [e if not e & step else WIDTH + e - step for e in range(WIDTH)]
    high = [e + step if not e & step else WIDTH + e for e in range(WIDTH)]
    for i in range(WIDTH):
        if not i & step:
            a, b = lines[i], lines[i + step]
            lines[i] = builder.shuffle_vector(a, b, ir.Constant(WORDS, low))
            lines[i + step] = builder.shuffle_vector(a, b, ir.Constant(WORDS, high))


@intrinsic
def turn_square(context: Any, addresses: Any, offset: Any, out: Any, stride: Any) -> Any:
    """In a kernel: 16 words from each of 16 addresses (an address of int64s), `offset` bytes further; transposed to `out`, whose
    rows are `stride` bytes apart."""

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        addresses, offset, out, stride = args
        lines = []
        for i in range(WIDTH):
            row = builder.load(pointer(builder, builder.add(addresses, I64(8 * i)), I64))
            lines.append(load_vector(builder, builder.add(row, offset), WORDS, 2))
        for step in (8, 4, 2, 1):
            _exchange(builder, lines, step)
        for i, line in enumerate(lines):
            store_vector(builder, line, builder.add(out, builder.mul(stride, I64(i))), 4)
        return ctx.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def _interleave(count: int) -> Any:
    """In a kernel: `(a, b, out)`; so many 16-bit elements of two rows, by turns."""
    kind = ir.VectorType(ir.IntType(16), count)

    @intrinsic
    def interleave(context: Any, a: Any, b: Any, out: Any) -> Any:
        def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b = (load_vector(builder, x, kind, 2) for x in args[:2])
            for part in range(2):
                first = part * count // 2
                mask = [first + i // 2 + (count if i % 2 else 0) for i in range(count)]
                made = builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), mask))
                store_vector(builder, made, builder.add(args[2], I64(part * count * 2)), 2)
            return ctx.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return interleave


interleave_32, interleave_16 = _interleave(32), _interleave(16)


@intrinsic
def take_number(context: Any, address: Any) -> Any:
    """In a kernel: the next number of a counter (an address of an int64) that threads share. Who takes one sees all that those
    wrote who took theirs before."""

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", pointer(builder, args[0], I64), I64(1), "acq_rel")

    return types.int64(types.int64), codegen


def stack_room(size: int) -> Any:
    """In a kernel: the address of so many bytes that last as long as the function."""

    @intrinsic
    def room(context: Any) -> Any:
        def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
            with builder.goto_entry_block():
                place = builder.alloca(ir.IntType(8), I64(size))
                place.align = 64
            return builder.ptrtoint(place, I64)

        return types.int64(), codegen

    return room

"""Sixteen float32 side by side, as a value in numba kernels: one vector register where the machine has wide ones.

numba has no vectors of its own, and leaves to the compiler which loops become some; these are always. On a machine with narrower
registers the compiler splits them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16
FLAGS = ("contract", "nsz")


def _host_has(feature: str) -> bool:
    return numba.config.CPU_NAME is None and bool(llvm.get_host_cpu_features().get(feature))


WIDE = _host_has("avx512f")
"""Whether the machine has 32 registers of 16 lanes."""
DOTS_BF16 = _host_has("avx512bf16") and llvm.llvm_version_info[0] >= 17
"""Whether it multiplies pairs of bfloat16 and adds them in float32, and this compiler knows how to say so."""


class LanesType(types.Type):  # type: ignore[misc]
    """numba's name for the vector."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat16, which llvmlite cannot name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


LANES = LanesType()
FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
WORDS = ir.VectorType(ir.IntType(32), WIDTH)
HALVES = ir.VectorType(ir.IntType(16), WIDTH)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


def constant(value: float) -> ir.Constant:
    """The same number in all lanes."""
    return ir.Constant(FLOATS, [float(value)] * WIDTH)


def words(value: int) -> ir.Constant:
    """The same 32 bits in all lanes."""
    return ir.Constant(WORDS, [value] * WIDTH)


def call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call one of LLVM's own functions."""
    module = builder.module
    declared = module.globals.get(name)
    if declared is None:
        declared = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(declared, args)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`."""
    return call(builder, "llvm.fma.v16f32", FLOATS, a, b, c)


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    """An address as a pointer."""
    return builder.inttoptr(address, kind.as_pointer())


def load_vector(builder: Any, address: Any, kind: Any, align: int) -> Any:
    """A vector from an address that is a multiple of `align`."""
    return builder.load(pointer(builder, address, kind), align=align)


def store_vector(builder: Any, value: Any, address: Any, align: int) -> None:
    """A vector to an address that is a multiple of `align`."""
    builder.store(value, pointer(builder, address, value.type), align=align)


def splat_value(builder: Any, scalar: Any) -> Any:
    """A scalar in all lanes."""
    kind = ir.VectorType(scalar.type, WIDTH)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, words(0))


def widened(builder: Any, halves: Any) -> Any:
    """bfloat16, as 16-bit words, as float32 lanes."""
    return builder.bitcast(builder.shl(builder.zext(halves, WORDS), words(16)), FLOATS)


def narrow(builder: Any, value: Any) -> Any:
    """float32 lanes as bfloat16, rounded to the nearest even, NaN kept; as 16-bit words."""
    if DOTS_BF16:
        return builder.bitcast(builder.fptrunc(value, ir.VectorType(BFloat(), WIDTH)), HALVES)
    bits = builder.bitcast(value, WORDS)
    odd = builder.and_(builder.lshr(bits, words(16)), words(1))
    rounded = builder.lshr(builder.add(builder.add(bits, words(0x7FFF)), odd), words(16))
    kept = builder.select(builder.fcmp_unordered("uno", value, value), words(0x7FC0), rounded)
    return builder.trunc(kept, HALVES)


def _operation(build: Callable[..., Any], arity: int) -> Any:
    """A function of lanes for kernels, from what it does to a builder."""

    def typed(*args: Any) -> Any:
        return LANES(*[LANES] * arity), lambda context, builder, signature, values: build(builder, *values)

    if arity == 1:
        return intrinsic(lambda context, a: typed(a))
    if arity == 2:
        return intrinsic(lambda context, a, b: typed(a, b))
    return intrinsic(lambda context, a, b, c: typed(a, b, c))


def _exp(builder: Any, x: Any) -> Any:
    """2 to the integer part by bits, the rest by a polynomial (Cephes, Moshier 1984); relative error below 2e-7.

    What is below -87 becomes 0; NaN stays NaN, because a comparison with it does not hold.
    """
    tiny = builder.fcmp_ordered("<", x, constant(-87.0))
    x = builder.select(tiny, constant(-87.0), x)
    x = builder.select(builder.fcmp_ordered(">", x, constant(88.0)), constant(88.0), x)
    n = call(builder, "llvm.floor.v16f32", FLOATS, fma(builder, x, constant(1.4426950408889634), constant(0.5)))
    r = fma(builder, n, constant(2.12194440e-4), fma(builder, n, constant(-0.693359375), x))
    p = constant(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = fma(builder, p, r, constant(factor))
    p = fma(builder, builder.fmul(r, r), p, builder.fadd(r, constant(1.0)))
    # The exponent is added to the bits: the polynomial lies between 0.7 and 1.5, and the sum stays a finite number.
    whole = builder.shl(builder.fptosi(n, WORDS), words(23))
    made = builder.bitcast(builder.add(builder.bitcast(p, WORDS), whole), FLOATS)
    made = builder.select(builder.fcmp_unordered("uno", x, x), x, made)
    return builder.select(tiny, constant(0.0), made)


def _power(builder: Any, x: Any, terms: tuple[float, ...]) -> Any:
    """2 to the x for x up to 127; about 0 for what is below -125, NaN for NaN.

    Adding 1.5 · 2^23 leaves the nearest integer in the low bits, from where it goes to the exponent; a polynomial for the rest.
    """
    x = builder.select(builder.fcmp_ordered("<", x, constant(-125.0)), constant(-125.0), x)
    shifted = builder.fadd(x, constant(12582912.0))
    rest = builder.fsub(x, builder.fsub(shifted, constant(12582912.0)))
    p = constant(terms[-1])
    for term in terms[-2::-1]:
        p = fma(builder, p, rest, constant(term))
    whole = builder.shl(builder.bitcast(shifted, WORDS), words(23))
    return builder.bitcast(builder.add(builder.bitcast(p, WORDS), whole), FLOATS)


# Least relative errors on [-1/2, 1/2]: 7.5e-8, and 7.5e-5 where the result becomes bfloat16, which keeps 2e-3.
_FINE = (1.0000000717, 0.6931469671, 0.2402211972, 0.05550713274, 0.009675541333, 0.001327647178)
_COARSE = (0.9999280736, 0.6932609858, 0.2426111221, 0.05517166722)


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


add = _operation(lambda b, x, y: b.fadd(x, y, flags=FLAGS), 2)
subtract = _operation(lambda b, x, y: b.fsub(x, y, flags=FLAGS), 2)
multiply = _operation(lambda b, x, y: b.fmul(x, y, flags=FLAGS), 2)
divide = _operation(lambda b, x, y: b.fdiv(x, y, flags=FLAGS), 2)
multiply_add = _operation(fma, 3)
"""`a * b + c`."""
larger = _operation(_maximum, 2)
"""Lane by lane, the larger; the second where either is NaN."""
exp_lanes = _operation(_exp, 1)
power_lanes = _operation(lambda b, x: _power(b, x, _FINE), 1)
"""2 to the power of each lane up to 127; about 0 below -125."""
power_lanes_coarse = _operation(lambda b, x: _power(b, x, _COARSE), 1)
"""The same with the precision of bfloat16."""


def _written(symbol: Any, function: Any) -> None:
    """Have an operator stand for a function of lanes."""

    def typed(a: Any, b: Any) -> Any:
        return (lambda a, b: function(a, b)) if a is LANES and b is LANES else None

    overload(symbol, strict=False)(typed)


_written(operator.add, add)
_written(operator.sub, subtract)
_written(operator.mul, multiply)
_written(operator.truediv, divide)


@intrinsic
def splat(context: Any, value: Any) -> Any:
    """In a kernel: a float32 in all lanes."""
    return LANES(types.float32), lambda ctx, builder, signature, args: splat_value(builder, args[0])


@intrinsic
def counted(context: Any) -> Any:
    """In a kernel: 0, 1, … 15."""
    made = ir.Constant(FLOATS, [float(i) for i in range(WIDTH)])
    return LANES(), lambda ctx, builder, signature, args: made


@intrinsic
def between(context: Any, index: Any, low: Any, high: Any, value: Any, other: Any) -> Any:
    """In a kernel: lane by lane `value` where `low <= index <= high`, else `other`."""

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        i, least, most, value, other = args
        seen = builder.and_(builder.fcmp_ordered(">=", i, least), builder.fcmp_ordered("<=", i, most))
        return builder.select(seen, value, other)

    return LANES(LANES, LANES, LANES, LANES, LANES), codegen


@intrinsic
def load_lanes(context: Any, address: Any, kind: Any) -> Any:
    """In a kernel: 16 elements from an address, widened."""
    bfloat = kind.dtype == types.uint16

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not bfloat:
            return load_vector(builder, args[0], FLOATS, 4)
        return widened(builder, load_vector(builder, args[0], HALVES, 2))

    return LANES(types.int64, kind), codegen


@intrinsic
def store_lanes(context: Any, address: Any, value: Any, kind: Any) -> Any:
    """In a kernel: 16 elements to an address, rounded where they are bfloat16."""
    bfloat = kind.dtype == types.uint16

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        store_vector(builder, narrow(builder, args[1]) if bfloat else args[1], args[0], 2 if bfloat else 4)
        return ctx.get_dummy_value()

    return types.void(types.int64, LANES, kind), codegen


def _reduced(context: Any, builder: Any, value: Any, combine: Callable[..., Any]) -> Any:
    """All lanes in one, by halves."""
    step = WIDTH // 2
    while step:
        other = ir.Constant(WORDS, [(i + step) % WIDTH for i in range(WIDTH)])
        value, step = combine(builder, value, builder.shuffle_vector(value, value, other)), step // 2
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


@intrinsic
def sum_lanes(context: Any, value: Any) -> Any:
    """In a kernel: the sum of all lanes."""

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduced(ctx, builder, args[0], lambda b, x, y: b.fadd(x, y))

    return types.float32(LANES), codegen


@intrinsic
def max_lanes(context: Any, value: Any) -> Any:
    """In a kernel: the largest lane."""

    def codegen(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduced(ctx, builder, args[0], _maximum)

    return types.float32(LANES), codegen

"""Compiled kernels for activations and layer normalisation, in lanes to the end: no element's result depends on its place."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange
from numba.extending import overload

from ._lanes import WIDTH, between, counted, larger, load_lanes, multiply_add, splat, store_lanes, sum_lanes
from ._softmax import LOG2_E, power_of
from ._tile import stack_room
from .compiled import REAL, at, exact_kernel, load, store

CHUNK = 4096
"""Elements that a thread takes at a time."""
_inner = numba.njit(error_model="numpy", forceinline=True)
_apart = numba.njit(error_model="numpy")
_room = stack_room(4 * WIDTH)
_ZERO, _ONE, _INFINITE = np.float32(0.0), np.float32(1.0), np.float32(np.inf)
_MOST = np.finfo(np.float32).max
_LARGEST = np.float32(125.0)
"""To whose power 2 is raised: by it a quotient is as good as 0."""
# erfc(z) exp(z²) / 2 as a polynomial in 1 / (1 + 0.4 z): relative errors 1.6e-4, where bfloat16 keeps 2e-3, and 1.2e-7.
_COARSE = tuple(map(np.float32, (0.00128095676, 0.0955679698, 0.200393395, -0.103054887, 0.30573202)))
_FINE = tuple(
    map(np.float32, (3.54308574e-05, 0.11206108, 0.120105663, 0.0658427382, 0.207205224, -0.183163863, 0.333065899,
                     -0.190486677, 0.0353344454))
)  # fmt: skip


def _tail_share(t: Any, kind: Any) -> Any:
    """In a kernel: half of erfc(z) exp(z²) for `t` = 1 / (1 + 0.4 z), as precise as `kind` keeps it."""


@overload(_tail_share, strict=False)
def _tail_share_of(t: Any, kind: Any) -> Any:
    c0, c1, c2, c3, c4 = _COARSE

    def coarse(t: Any, kind: Any) -> Any:
        p = multiply_add(splat(c4), t, splat(c3))
        return multiply_add(multiply_add(multiply_add(p, t, splat(c2)), t, splat(c1)), t, splat(c0))

    f0, f1, f2, f3, f4, f5, f6, f7, f8 = _FINE

    def fine(t: Any, kind: Any) -> Any:
        p = multiply_add(multiply_add(splat(f8), t, splat(f7)), t, splat(f6))
        p = multiply_add(multiply_add(multiply_add(p, t, splat(f5)), t, splat(f4)), t, splat(f3))
        return multiply_add(multiply_add(multiply_add(p, t, splat(f2)), t, splat(f1)), t, splat(f0))

    return coarse if kind.dtype == numba.types.uint16 else fine


@_inner
def _gelu_of(x: Any, kind: Any) -> Any:
    """x · Φ(x), by the smaller of the two tails of Φ, so that it is as exact far below zero as elsewhere."""
    size = larger(x, splat(_ZERO) - x)
    t = splat(_ONE) / multiply_add(size, splat(np.float32(0.4 * 0.7071067811865476)), splat(_ONE))
    tail = _tail_share(t, kind) * power_of(x * x * splat(np.float32(-0.5) * LOG2_E), kind)
    below = x * tail
    return between(x, splat(_ZERO), splat(_MOST), x - below, below)  # infinity stays what it is


@_inner
def _sigmoid_product_of(x: Any, linear: Any, cubic: Any, kind: Any) -> Any:
    """x · σ(linear · x + cubic · x³)."""
    inner = x * multiply_add(x * x, cubic, linear)
    power = inner * splat(-LOG2_E)
    power = between(power, splat(-_INFINITE), splat(_LARGEST), power, splat(_LARGEST))
    return x / (splat(_ONE) + power_of(power, kind))


@_apart
def _take(x: int, count: int, room: int, kind: Any) -> Any:
    """The fewer than 16 elements at an address; zeros in the other lanes."""
    store_lanes(room, splat(_ZERO), REAL)
    for i in range(count):
        at(room, REAL)[i] = load(at(x, kind), i)
    return load_lanes(room, REAL)


@_apart
def _put(out: int, count: int, value: Any, room: int, kind: Any) -> None:
    """Put the first of 16 lanes at an address."""
    store_lanes(room, value, REAL)
    for i in range(count):
        store(at(out, kind), i, at(room, REAL)[i])


@exact_kernel
def gelu(x: int, out: int, count: int, kind: Any) -> None:
    """`out = x · Φ(x)`, Φ the normal distribution's share below x (Hendrycks & Gimpel 2016)."""
    size = kind.itemsize
    for chunk in prange((count + CHUNK - 1) // CHUNK):
        first, end = chunk * CHUNK, min(count, (chunk + 1) * CHUNK)
        whole = first + (end - first) // WIDTH * WIDTH
        for i in range(first, whole, WIDTH):
            store_lanes(out + size * i, _gelu_of(load_lanes(x + size * i, kind), kind), kind)
        if whole < end:
            room = _room()
            made = _gelu_of(_take(x + size * whole, end - whole, room, kind), kind)
            _put(out + size * whole, end - whole, made, room, kind)


@exact_kernel
def sigmoid_product(x: int, out: int, count: int, linear: float, cubic: float, kind: Any) -> None:
    """`out = x · σ(linear · x + cubic · x³)`: SiLU, and the quick and the tanh forms of GELU."""
    size, a, b = kind.itemsize, splat(np.float32(linear)), splat(np.float32(cubic))
    for chunk in prange((count + CHUNK - 1) // CHUNK):
        first, end = chunk * CHUNK, min(count, (chunk + 1) * CHUNK)
        whole = first + (end - first) // WIDTH * WIDTH
        for i in range(first, whole, WIDTH):
            store_lanes(out + size * i, _sigmoid_product_of(load_lanes(x + size * i, kind), a, b, kind), kind)
        if whole < end:
            room = _room()
            made = _sigmoid_product_of(_take(x + size * whole, end - whole, room, kind), a, b, kind)
            _put(out + size * whole, end - whole, made, room, kind)


@exact_kernel
def layer_norm(x: int, weight: int, bias: int, out: int, rows: int, n: int, eps: float, kind: Any) -> None:
    """`out = (x - mean) / sqrt(variance + eps) · weight + bias` for contiguous rows; the address of what there is not is 0."""
    size, whole, share = kind.itemsize, n // WIDTH * WIDTH, np.float32(1.0) / np.float32(n)
    rest, end = n - whole, size * whole
    for row in prange(rows):
        room, line, made = _room(), x + size * row * n, out + size * row * n
        last = splat(_ZERO) if rest == 0 else _take(line + end, rest, room, kind)
        total = last
        for i in range(0, end, size * WIDTH):
            total = total + load_lanes(line + i, kind)
        mean = splat(sum_lanes(total) * share)
        last = between(counted(), splat(_ZERO), splat(np.float32(rest - 1)), last - mean, splat(_ZERO))
        squares = last * last
        for i in range(0, end, size * WIDTH):
            value = load_lanes(line + i, kind) - mean
            squares = multiply_add(value, value, squares)
        scale = splat(np.float32(1.0) / np.sqrt(sum_lanes(squares) * share + np.float32(eps)))
        for i in range(0, end, size * WIDTH):
            value = (load_lanes(line + i, kind) - mean) * scale
            if weight != 0:
                value = value * load_lanes(weight + i, kind)
            if bias != 0:
                value = value + load_lanes(bias + i, kind)
            store_lanes(made + i, value, kind)
        if rest > 0:
            last = last * scale
            if weight != 0:
                last = last * _take(weight + end, rest, room, kind)
            if bias != 0:
                last = last + _take(bias + end, rest, room, kind)
            _put(made + end, rest, last, room, kind)

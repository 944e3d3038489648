"""What the numba kernels share: guards, the thread pool, and pointers to float32 or bfloat16.

numba knows no bfloat16, so such tensors are read as 16-bit words and widened by a shift. Kernels take addresses, because
making a numpy array of a tensor costs more than a small kernel. Everything accumulates in float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..recording.tape import active


def _one_thread_pool() -> None:
    """Let numba find the OpenMP library that torch brings, before it looks for the system's: two pools would fight."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_one_thread_pool()

import numba  # noqa: E402
from numba import types  # noqa: E402
from numba.extending import intrinsic, overload  # noqa: E402

from .disk_cache import cached  # noqa: E402

KINDS = {torch.bfloat16: np.uint16, torch.float32: np.float32}
"""dtypes that the kernels read, and as what."""
REAL, WHOLE, WORD = np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.uint32)
"""In kernels: what tells `at` that an address is of float32, int64 or uint32."""
# Sums may be reordered; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}


GRAIN = 32_768
"""Elements of work below which one thread does it: waking the others costs more, and much more when the machine is busy."""


def _stamp() -> str:
    """What changes with the source of any compiled kernel."""
    here = Path(__file__)
    sources = [here, *sorted(here.parent.glob("_[a-z]*.py"))]
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


_STAMP = _stamp()


class Kernel:
    """A kernel compiled twice, for one thread and for all, cached on disk; each form when it is first used."""

    def __init__(self, function: Callable[..., Any], *, reorder: bool) -> None:
        options: dict[str, Any] = {
            "fastmath": FAST if reorder else False,
            "nogil": True,
            "error_model": "numpy",
        }
        # Files of numba's cache bear the function's name and say nothing of options: under one name, the form that was compiled
        # first would serve as both. Nor do they follow changes of what a function calls in other files.
        self.serial = cached(numba.njit(_renamed(function, "serial"), **options))
        self.parallel = cached(numba.njit(_renamed(function, "parallel"), parallel=True, **options))
        self.__doc__ = function.__doc__

    def __call__(self, work: int, *args: Any) -> None:
        """Run it; `work` is about how many elements it touches."""
        form = self.form(work)
        form(*args)
        tape = active()
        if tape is not None:
            tape.note(prepared(form, args), args)

    def form(self, work: int) -> Callable[..., None]:
        """For one thread, or for all."""
        found: Callable[..., None] = self.serial if work < GRAIN else self.parallel
        return found


def prepared(form: Any, args: tuple[Any, ...]) -> Callable[..., None]:
    """What one of a kernel's forms runs for arguments of these types, past numba's look at each of them; the form itself, if it
    was not called with such arguments yet or takes them for others."""
    found = form.overloads.get(tuple(map(form.typeof_pyval, args)))
    return form if found is None else found.entry_point


def _renamed(function: Callable[..., Any], form: str) -> Callable[..., Any]:
    """The same function under a name of its own."""
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    made.__qualname__, made.__module__ = f"{function.__qualname__}_{form}_{_STAMP}", function.__module__
    made.__doc__ = function.__doc__
    return made


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a `Kernel` of a function whose outer loop is a `prange`, and whose sums the compiler may reorder."""
    return Kernel(function, reorder=True)


def exact_kernel(function: Callable[..., Any]) -> Kernel:
    """The same for a function that is computed as it is written."""
    return Kernel(function, reorder=False)


def prepare_threads() -> None:
    """Use as many threads as torch does."""
    count = torch.get_num_threads()
    numba.set_num_threads(max(1, min(count, numba.config.NUMBA_NUM_THREADS)))
    # numba has started its threads by now, and told OpenMP of them all: torch's number is to be told again.
    torch.set_num_threads(count)


def kind_of(dtype: torch.dtype) -> Any:
    """An empty array whose dtype tells a kernel what the addresses point at."""
    return np.empty(0, dtype=KINDS[dtype])


def supports(*tensors: Tensor) -> bool:
    """Whether the kernels can read these tensors: on a CPU, of one known dtype, rows contiguous."""
    first = tensors[0].dtype
    return first in KINDS and all(t.dtype == first and t.device.type == "cpu" and t.stride(-1) == 1 for t in tensors)


@intrinsic
def at(context: Any, address: Any, kind: Any) -> Any:
    """In a kernel: an address as a pointer to elements of `kind`'s dtype. Pointers, not arrays: numba lets an array's index be
    negative, and the check keeps loops from being vectorised."""
    signature = types.CPointer(kind.dtype)(address, kind)

    def codegen(ctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ctx.get_value_type(sig.return_type))

    return signature, codegen


@intrinsic
def _bits_to_float(context: Any, bits: Any) -> Any:
    def codegen(ctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ctx.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


@intrinsic
def _float_to_bits(context: Any, value: Any) -> Any:
    def codegen(ctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ctx.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


def load(array: Any, i: int) -> float:
    """In a kernel: element `i` as float32."""
    return 0.0


@overload(load, strict=False)
def _load(array: Any, i: Any) -> Any:
    if array.dtype == types.uint16:
        return lambda array, i: _bits_to_float(np.uint32(array[i]) << np.uint32(16))
    return lambda array, i: array[i]


def store(array: Any, i: int, value: float) -> None:
    """In a kernel: put a float32, rounded to the nearest even where the array is bfloat16."""


@overload(store, strict=False)
def _store(array: Any, i: Any, value: Any) -> Any:
    if array.dtype == types.uint16:

        def narrow(array: Any, i: Any, value: Any) -> None:
            bits = _float_to_bits(np.float32(value))
            if value != value:
                array[i] = np.uint16(0x7FC0)
            else:
                array[i] = np.uint16(
                    (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
                )

        return narrow

    def plain(array: Any, i: Any, value: Any) -> None:
        array[i] = value

    return plain


@numba.njit(fastmath=FAST, error_model="numpy")
def exp(x: float) -> float:
    """In a kernel: e to the x for float32 in a form that the compiler vectorises; relative error below 2e-7.

    2 to the integer part by bits, the rest by a polynomial (Cephes, Moshier 1984).
    """
    x = min(max(np.float32(x), np.float32(-87.0)), np.float32(88.0))
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _bits_to_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))


@numba.njit(fastmath=FAST, error_model="numpy")
def tanh(x: float) -> float:
    """In a kernel: the hyperbolic tangent for float32, by `exp`; absolute error below 4e-7."""
    # `exp` holds its argument to finite numbers; what is none must stay none.
    return np.float32(1.0) - np.float32(2.0) / (exp(np.float32(2.0) * x) + np.float32(1.0)) + x * np.float32(0.0)

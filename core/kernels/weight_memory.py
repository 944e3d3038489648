"""Packed weights in huge pages: a decoded token reads all of them, and with pages of 4 KiB the processor looks for one every
4 KiB of the way. Such memory is also quicker to come by: a fault brings 2 MiB.

oneDNN takes its memory from the C library, which knows nothing of them. So what it packed is copied, and torch is told of the
copy by the functions that it has for compiled models; where it has none of them, a weight stays where it is.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..mapping import mapped

HUGE = 2 * 2**20
"""Bytes of a huge page, and what its address is a multiple of."""
CHUNK = 64 * 2**20
"""Bytes that are asked of the system at once; it gives them as they are written."""
ALIGNMENT = 64
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8"}


class Placed(NamedTuple):
    """A packed weight, and the memory that it lies in, which lasts as long as this is held; None: the weight's own."""

    packed: Tensor
    memory: NDArray[np.uint8] | None


class HugePages:
    """Hands out memory, weight after weight without gaps between pages. A chunk is given back when none of it is held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunk: Callable[[], NDArray[np.uint8] | None] = lambda: None
        self._used = 0

    def take(self, size: int) -> NDArray[np.uint8]:
        """So many bytes, zeroed."""
        with self._lock:
            chunk = self._chunk()
            if chunk is None or self._used + size > len(chunk):
                chunk = mapped(max(size, CHUNK) + HUGE, huge=True)
                self._chunk, self._used = weakref.ref(chunk), -chunk.ctypes.data % HUGE
            place = chunk[self._used : self._used + size]
            self._used += -(-size // ALIGNMENT) * ALIGNMENT
            return place


_pages = HugePages()


def in_huge_pages(packed: Tensor) -> Placed:
    """A weight that oneDNN packed, moved if that can be."""
    if not _can_place(packed.dtype):
        return Placed(packed, None)
    return _moved(packed)


def _moved(packed: Tensor) -> Placed:
    size = int(torch.ops.mkldnn._nbytes(packed))
    memory = _pages.take(size)
    ctypes.memmove(memory.ctypes.data, int(torch.ops.mkldnn.data_ptr(packed)), size)
    return Placed(_opaque(packed, memory.ctypes.data), memory)


@functools.cache
def _can_place(dtype: torch.dtype) -> bool:
    """Whether torch says of a weight that was moved what it says of the one that it packed."""
    names = ("data_ptr", "_nbytes", "_get_mkldnn_serialized_md")
    if dtype not in _DTYPES or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    weight = torch.ones(64, 64, dtype=dtype)
    pack = torch.ops.onednn.qlinear_prepack if dtype is torch.int8 else torch.ops.mkldnn._reorder_linear_weight
    packed = pack(weight, None)
    try:
        moved, memory = _moved(packed)
    except (AttributeError, OSError, RuntimeError, TypeError):
        return False
    assert memory is not None
    return bool(
        (moved.dtype, moved.shape) == (packed.dtype, packed.shape)
        and torch.ops.mkldnn.data_ptr(moved) == memory.ctypes.data
        and torch.equal(*(torch.ops.mkldnn._get_mkldnn_serialized_md(x) for x in (packed, moved)))
    )


def _opaque(packed: Tensor, address: int) -> Tensor:
    """A tensor of the same layout over other memory, which it does not own."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    layout: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(packed)
    sizes = (ctypes.c_int64 * packed.ndim)(*packed.shape)
    strides = (ctypes.c_int64 * packed.ndim)(packed.shape[1], 1)
    handle, integer, address_of = ctypes.c_void_p(), ctypes.c_int64, ctypes.c_void_p
    make, code = library.aoti_torch_create_tensor_from_blob_v2, ctypes.c_int32
    make.argtypes = [
        address_of, integer, address_of, address_of, integer, code, code, code, address_of, code, address_of, integer
    ]  # fmt: skip
    dtype = getattr(library, f"aoti_torch_dtype_{_DTYPES[packed.dtype]}")()
    device, opaque = library.aoti_torch_device_type_cpu(), library.aoti_torch_layout__mkldnn()
    failed = make(
        address, packed.ndim, sizes, strides, 0, dtype, device, 0, ctypes.byref(handle), opaque, layout.data_ptr(), layout.numel()
    )  # fmt: skip
    if failed:
        raise RuntimeError("torch makes no tensor of this layout over memory that is given")
    capsule: Any = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", ctypes.pythonapi)
    )
    made: Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule(handle.value, None, None))
    return made


__all__ = ["in_huge_pages"]

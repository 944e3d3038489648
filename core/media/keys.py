"""Keys of media items: 256 bits over everything that what becomes of an item depends on.

Every part is framed by its kind and length, so that no two values are written alike: a picture of 30 × 150 is not one of
150 × 30, and a grey one is not a coloured one of the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdk.multimodal.fields import FieldValue


def item_key(scope: str, modality: str, value: Any, arguments: Any) -> bytes:
    """A media item's key, 32 bytes.

    Args:
        scope: The plugin, its version and the model.
        modality: `"image"`, …
        value: A raw item, its processed tensors by name, or its embeddings.
        arguments: Of the processor, and whatever else keeps items apart, such as a salt.

    Returns:
        The key; one that never comes again where a value is of a kind that cannot be written down.
    """
    state = hashlib.blake2b(digest_size=32, person=b"engine item 1")
    try:
        for part in _framed([scope, modality, value, arguments]):
            state.update(part)
    except _Unknown:
        return os.urandom(32)
    return state.digest()


class _Unknown(Exception):
    """A value of a kind that is not written down."""


def _framed(value: Any) -> Iterator[bytes | memoryview]:
    """A value as bytes that no other value gives: kind, length, contents."""
    if value is None or isinstance(value, (bool, int, float, str)):
        yield from _frame(type(value).__name__, repr(value).encode())
    elif isinstance(value, (bytes, bytearray)):
        yield from _frame("bytes", value)
    elif isinstance(value, (list, tuple)):
        yield from _frame("list", str(len(value)).encode())
        for v in value:
            yield from _framed(v)
    elif isinstance(value, Mapping):
        yield from _frame("mapping", str(len(value)).encode())
        for name in sorted(value, key=str):
            yield from _framed(str(name))
            yield from _framed(value[name])
    elif isinstance(value, FieldValue):
        yield from _framed([value.field.modality, value.field.kind, value.field.count, value.value])
    elif isinstance(value, Tensor):
        yield from _frame("tensor", f"{value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        yield flat.view(torch.uint8).numpy().data if flat.numel() else b""
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise _Unknown
        yield from _frame("array", f"{array.dtype.str} {np.shape(value)}".encode())
        yield array.reshape(-1).view(np.uint8).data if array.size else b""
    elif hasattr(value, "mode") and hasattr(value, "tobytes"):  # a PIL image, without importing PIL
        palette = value.getpalette() if value.mode == "P" else None
        yield from _frame("image", f"{value.mode} {value.size} {palette}".encode())
        yield from _frame("pixels", value.tobytes())
    else:
        raise _Unknown


def _frame(kind: str, contents: bytes | bytearray) -> Iterator[bytes]:
    yield f"{kind} {len(contents)}:".encode()
    yield bytes(contents)


__all__ = ["item_key"]

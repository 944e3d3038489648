"""Embeddings that clients send in the place of media: files that hold numbers and nothing that runs."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..errors import InvalidRequestError

_NPY = b"\x93NUMPY"


def read_embeds(data: str | bytes, where: str) -> Tensor:
    """The one tensor of a file.

    Args:
        data: The file, or its base64.
        where: In the request, for messages.

    Raises:
        InvalidRequestError: It is no .npy or .safetensors file, or holds something else than one float tensor.
    """
    try:
        file = base64.b64decode(data, validate=True) if isinstance(data, str) else data
        found = _npy(file) if file.startswith(_NPY) else _safetensors(file)
    except (binascii.Error, ValueError, EOFError, OSError, MemoryError, SafetensorError) as error:
        raise InvalidRequestError(
            "embeddings are an .npy or .safetensors file of one float tensor, in base64",
            code="invalid_embeds",
            param=where,
        ) from error
    if not found.is_floating_point() or found.ndim != 2 or not found.numel():
        raise InvalidRequestError(
            f"embeddings are one float tensor (rows, hidden), not {found.dtype} {tuple(found.shape)}",
            code="invalid_embeds",
            param=where,
        )
    return found


def _npy(file: bytes) -> Tensor:
    array = np.load(io.BytesIO(file), allow_pickle=False)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else None))


def _safetensors(file: bytes) -> Tensor:
    tensors = list(load(file).values())
    if len(tensors) != 1:
        raise ValueError(f"{len(tensors)} tensors")
    found: Tensor = tensors[0]
    return found


__all__ = ["read_embeds"]

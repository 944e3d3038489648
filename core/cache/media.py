"""What media items have become, kept by the items' keys: tensors of the HF processor, and embeddings of the encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdk.multimodal.fields import FieldValue, ItemKwargs

from ..media.keys import item_key
from .lru import ByteLRU
from .memory import apart


class EncoderCache(ByteLRU[Tensor]):
    """Item key → `(rows, hidden)` embeddings, so that a picture that is asked about again is not encoded again.

    They are to lie in memory of their own, see `apart`.

    Args:
        max_bytes: Most that is kept for items which no running sequence needs; 0: nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, lambda rows: rows.nbytes)


class ProcessingCache(ByteLRU[ItemKwargs]):
    """Item key → the model's arguments, so that a picture that comes again is not resized again.

    Args:
        max_bytes: Bound; 0: nothing is kept.
        scope: What besides an item and its arguments the result depends on: the plugin, its version, the model.
    """

    def __init__(self, max_bytes: int, scope: str) -> None:
        super().__init__(max_bytes, lambda kwargs: sum(_nbytes(f.value) for f in kwargs.values()), _apart)
        self.scope = scope

    def key(self, modality: str, value: Any, arguments: Any) -> bytes:
        """See `sdk.multimodal.processor.ItemMemory`."""
        return item_key(self.scope, modality, value, arguments)


def _apart(kwargs: ItemKwargs) -> ItemKwargs:
    return {n: FieldValue(apart(f.value), f.field) if isinstance(f.value, Tensor) else f for n, f in kwargs.items()}


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(_nbytes(v) for v in value)
    return 64


__all__ = ["EncoderCache", "ProcessingCache"]

"""What media items have become, kept by the items' keys: tensors of the HF processor, and embeddings of the encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdk.multimodal.fields import FieldValue, ItemKwargs

from ..media.keys import item_key
from .lru import ByteLRU


class EncoderCache(ByteLRU[Tensor]):
    """Item key → `(rows, hidden)` embeddings, so that a picture that is asked about again is not encoded again.

    Args:
        max_bytes: Most that is kept for items which no running sequence needs; 0: nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, lambda rows: rows.nbytes)

    def put(self, key: bytes, value: Tensor) -> None:
        super().put(key, _own(value))


class ProcessingCache(ByteLRU[ItemKwargs]):
    """Item key → the model's arguments, so that a picture that comes again is not resized again.

    Args:
        max_bytes: Bound; 0: nothing is kept.
        scope: What besides an item and its arguments the result depends on: the plugin, its version, the model.
    """

    def __init__(self, max_bytes: int, scope: str) -> None:
        super().__init__(max_bytes, lambda kwargs: sum(_nbytes(f.value) for f in kwargs.values()))
        self.scope = scope

    def key(self, modality: str, value: Any, arguments: Any) -> bytes:
        """See `sdk.multimodal.processor.ItemMemory`."""
        return item_key(self.scope, modality, value, arguments)

    def put(self, key: bytes, value: ItemKwargs) -> None:
        super().put(key, {name: FieldValue(_own(f.value), f.field) for name, f in value.items()})


def _own(value: Any) -> Any:
    """A tensor in memory of its own: a view would keep the whole batch it was cut from."""
    if isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    return value


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(_nbytes(v) for v in value)
    return 64


__all__ = ["EncoderCache", "ProcessingCache"]

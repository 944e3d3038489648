"""An embedding whose table is the head's weight: it reads what was packed for the head, so that no other form of it is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from ._table import packed_rows
from .linear_compiled import CompiledPackedLinear

COST = 4
"""About how many elements copied take as long as one that is picked: each pair of them is in a line of its own."""


class PackedTable:
    """Fills one `sdk.layers.VocabParallelEmbedding`. Shapes: `(...) int -> (..., inputs of the head)`."""

    def __init__(self, head: CompiledPackedLinear, address: int) -> None:
        self.head, self.address = head, address

    def __call__(self, input_ids: Tensor) -> Tensor:
        ids, head = input_ids.long().contiguous(), self.head
        out = torch.empty(*ids.shape, head.inputs, dtype=torch.bfloat16)
        work = out.numel() * COST
        packed_rows(work, ids.data_ptr(), ids.numel(), self.address, head.outputs, head.inputs, out.data_ptr())
        return out


def packed_table(head: object) -> PackedTable | None:
    """What reads rows from what fills a head; None: it has no packed weight, or none that can be read."""
    if not isinstance(head, CompiledPackedLinear) or head.address is None:
        return None
    return PackedTable(head, head.address)


__all__ = ["PackedTable", "packed_table"]

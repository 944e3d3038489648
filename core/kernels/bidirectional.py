"""Attention in both directions over the sequences of a step: each is an item of the packed encoder attention.

The specification is `sdk.layers.BidirectionalAttention.reference`, sequence by sequence.
"""

from __future__ import annotations

from torch import Tensor

from sdk.layers import BidirectionalAttention, PackedEncoderAttention

from ..step import StepHolder
from .base import Kernels


class StepBidirectionalAttention:
    """Fills one `sdk.layers.BidirectionalAttention`.

    Args:
        layer: The layer.
        kernels: Whose packed attention computes it.
        step: Where the running step is found; its sequences are there whole.
    """

    def __init__(self, layer: BidirectionalAttention, kernels: Kernels, step: StepHolder) -> None:
        packed = PackedEncoderAttention(layer.num_heads, layer.head_dim, layer.scale)
        self.attend, self.step = kernels.other(packed) or packed, step

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = self.attend(q, k, v, [scheduled.count for scheduled in self.step.tensors.order])
        return out

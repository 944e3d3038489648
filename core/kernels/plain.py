"""The kernels in torch, which run on every device, with compiled parts where a CPU has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sdk.layers import Attention, CrossAttention, EncoderAttention, Layer, PackedEncoderAttention
from sdk.layers.base import Kernel

from ..step import StepHolder
from .attention import FullAttention, PagedAttention
from .cross_attention import StateAttention
from .packed_attention import PackedFullAttention

if TYPE_CHECKING:
    from .choice import CompiledKernels


class PlainKernels:
    """See `Kernels`.

    Args:
        compiled: The compiled parts; None: torch alone.
    """

    def __init__(self, compiled: CompiledKernels | None) -> None:
        self.compiled = compiled

    def attention(self, layer: Attention, keys: Tensor, values: Tensor, step: StepHolder) -> Kernel:
        """Attention over pages, sequences of similar shape together."""
        fast = self.compiled.attention(layer, keys, values) if self.compiled is not None else None
        return PagedAttention(layer, keys, values, step, fast)

    def cross_attention(
        self, layer: CrossAttention, keys: Tensor, values: Tensor, step: StepHolder, index: int
    ) -> Kernel:
        """Attention over encoder states."""
        fast = self.compiled.cross_attention(layer, keys, values) if self.compiled is not None else None
        return StateAttention(layer, keys, values, step, index, fast)

    def other(self, layer: Layer) -> Kernel | None:
        """Encoder attention, by torch's fused one or compiled; rows by the compiled kernels."""
        if isinstance(layer, EncoderAttention):
            padded = FullAttention(layer)
            return padded if self.compiled is None else self.compiled.encoder_attention(layer, padded)
        if isinstance(layer, PackedEncoderAttention):
            packed = PackedFullAttention(layer)
            return packed if self.compiled is None else self.compiled.encoder_attention(layer, packed)
        found: Kernel | None = self.compiled.row_kernel(layer) if self.compiled is not None else None
        return found

"""`Kernels`: what a backend brings, one form of each op for the layers of a model on one device."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sdk.layers import Attention, CrossAttention, Layer
from sdk.layers.base import Kernel

from ..step import StepHolder


class Kernels(Protocol):
    """One way to compute every op. Each method returns what fills a layer's hole."""

    def attention(self, layer: Attention, keys: Tensor, values: Tensor, step: StepHolder) -> Kernel:
        """Attention over pages.

        Args:
            layer: The layer, for its shape and options.
            keys, values: `(pages, page_size, kv_heads, head_dim)`, its part of the pool.
            step: Where the running step is found.
        """
        ...

    def cross_attention(
        self, layer: CrossAttention, keys: Tensor, values: Tensor, step: StepHolder, index: int
    ) -> Kernel:
        """Attention over encoder states.

        Args:
            layer: The layer, for its shape.
            keys, values: `(states, rows, kv_heads, head_dim)`.
            step: Where the running step is found.
            index: Which of the model's layers of cross-attention this is.
        """
        ...

    def other(self, layer: Layer) -> Kernel | None:
        """A form of any other layer; None: its reference serves, or what its weights are packed to."""
        ...

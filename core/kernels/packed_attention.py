"""Attention in both directions over items that lie end to end.

The specification is `sdk.layers.PackedEncoderAttention.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sdk.layers import PackedEncoderAttention


class PackedFullAttention:
    """Fills one `sdk.layers.PackedEncoderAttention` with torch's fused attention, items of one length together."""

    def __init__(self, layer: PackedEncoderAttention) -> None:
        self.scale = layer.scale

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        sizes = np.array(lengths, dtype=np.int64)
        firsts = np.cumsum(sizes) - sizes
        out = q.new_empty(len(q), q.shape[1] * q.shape[2])
        for length in np.unique(sizes[sizes > 0]):
            places = firsts[sizes == length, None] + np.arange(length)
            rows = torch.from_numpy(places).to(q.device)
            a, b, c = (x[rows].transpose(1, 2) for x in (q, k, v))
            made = F.scaled_dot_product_attention(a, b, c, scale=self.scale)
            out[rows] = made.transpose(1, 2).flatten(2)
        return out

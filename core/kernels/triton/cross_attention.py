"""Cross-attention over encoder states: paged attention without a causal mask, a state being one page."""

from __future__ import annotations

import torch
from torch import Tensor

from sdk.layers import CrossAttention

from ...step import StepHolder, StepTensors
from ..cross_attention import StateAttention
from .common import processors
from .paged_attention import Scores, attend_pages


class TritonCrossAttention(StateAttention):
    """Fills one `sdk.layers.CrossAttention`; see `StateAttention`."""

    def __init__(self, layer: CrossAttention, keys: Tensor, values: Tensor, step: StepHolder, index: int) -> None:
        super().__init__(layer, keys, values, step, index)
        self.table = torch.arange(len(keys), dtype=torch.int32, device=keys.device).unsqueeze(1)
        self.scores = Scores(layer.scale, causal=False)
        self.busy = 2 * processors(keys.device)

    def attend(self, step: StepTensors, q: Tensor) -> Tensor:
        """`(tokens, heads, head_dim) -> (tokens, heads * head_dim)`."""
        q = q if q.stride(-1) == 1 else q.contiguous()
        return attend_pages(q, self.keys, self.values, self.table, step.state_sequences, self.scores, self.busy)

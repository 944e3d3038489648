"""Cross-attention by the compiled kernel: a state is a page, of which a request's rows are seen by all of its tokens."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sdk.layers import CrossAttention

from ..step import StepTensors
from .attention_compiled import AttentionKernel, PagesOf, StepJobs


class CompiledCrossAttention:
    """Serves one layer; see `StateAttention`.

    Args:
        layer: The layer, for its shape.
        keys, values: `(states, rows, kv_heads, head_dim)`.
        jobs: Shared by the layers of a model.
    """

    def __init__(self, layer: CrossAttention, keys: Tensor, values: Tensor, jobs: StepJobs) -> None:
        self.layer, self.pages, self.jobs = layer, PagesOf.pool(keys, values), jobs
        self.kernel = AttentionKernel(
            layer.num_heads, layer.num_kv_heads, layer.head_dim, layer.scale, keys.dtype, causal=False
        )
        self.table = np.arange(len(keys), dtype=np.int32)[:, None]

    def reads(self, q: Tensor) -> bool:
        """Whether these `(tokens, heads, head_dim)` queries lie as the kernel wants them."""
        return self.kernel.reads(q)

    def __call__(self, step: StepTensors, q: Tensor, out: Tensor) -> Tensor:
        """`(tokens, heads, head_dim)` → `(tokens, heads * head_dim)`."""
        layer = self.layer
        jobs = self.jobs.of(step.state_sequences, layer.num_heads, layer.num_kv_heads, layer.head_dim)
        return self.kernel(q, self.pages, self.table, jobs, out)

"""What cross-attention keeps of a request: keys and values of its encoder states, in every layer, written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sdk.layers import CrossAttention

STATE_PAGE = 64
"""Keys of a state lie in pages of so many, so that the kernels of paged attention read them too."""


def padded(rows: int) -> int:
    """Rows that a state of `rows` takes."""
    return -(-rows // STATE_PAGE) * STATE_PAGE


class EncoderStates:
    """Memory for the states of the requests that run, and of those that ran last.

    Args:
        layers: Path → layer.
        memory: Path → keys and values, each `(states + 1, rows, kv_heads, head_dim)`; state 0 is for padding.
        max_rows: Most rows of a state.
    """

    def __init__(
        self, layers: Mapping[str, CrossAttention], memory: Mapping[str, tuple[Tensor, Tensor]], max_rows: int
    ) -> None:
        self.layers, self.memory, self.max_rows = layers, memory, max_rows

    def write(self, states: Sequence[int], encoded: Sequence[Tensor]) -> None:
        """Project encoder states and keep them.

        Args:
            states: Which states they become.
            encoded: `(n_i, hidden)` each.
        """
        lengths = [len(e) for e in encoded]
        rows = torch.cat(list(encoded))
        for path, layer in self.layers.items():
            keys, values = layer.project(rows)
            for state, k, v in zip(states, keys.split(lengths), values.split(lengths)):
                self.memory[path][0][state, : len(k)] = k
                self.memory[path][1][state, : len(v)] = v

    def scrub(self, state: int) -> None:
        """Zero a state: NaN would reach whoever gets it next."""
        for keys, values in self.memory.values():
            keys[state], values[state] = 0, 0

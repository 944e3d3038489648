"""What cross-attention keeps of a request: keys and values of its encoder states, in every layer, written once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sdk.layers import CrossAttention

from ..request import Request
from .pages import PagePool

STATE_PAGE = 64
"""Keys of a state lie in pages of so many, so that the kernels of paged attention read them too."""


def padded(rows: int) -> int:
    """Rows that a state of `rows` takes."""
    return -(-rows // STATE_PAGE) * STATE_PAGE


class StatePool:
    """Who holds which state. A state is kept after its request for those who bring the same medium, until the room is needed.

    Args:
        num_states: How many there are.
        rows: Most rows of one.
    """

    def __init__(self, num_states: int, rows: int) -> None:
        self.rows = rows
        self.pool = PagePool(num_states, 1)
        self._lengths: dict[int, int] = {}

    def has(self, request: Request) -> bool:
        """Whether the states of a request's medium are at hand."""
        return bool(self._found(request))

    def _found(self, request: Request) -> list[int]:
        key = request.encoder_item.key if request.encoder_item is not None else b""
        return self.pool.find([key]) if key else []

    def take(self, request: Request) -> bool:
        """Give a request its state; `state_len` says whether it is written already. False when there is none to give."""
        if request.encoder_item is None:
            return True
        found = self._found(request)
        self.pool.share(found)
        taken = found or self.pool.take(1)
        if not taken:
            return False
        request.state = taken[0]
        request.state_len = self._lengths[taken[0]] if found else 0
        return True

    def written(self, request: Request) -> None:
        """A request's state has been written and found right: others may read it."""
        assert request.encoder_item is not None
        self._lengths[request.state] = request.state_len
        if request.encoder_item.key:
            self.pool.publish(request.state, request.encoder_item.key)

    def release(self, request: Request) -> None:
        """Take a request's state back, if it has one."""
        if request.state > 0:
            self.pool.release([request.state])
            request.state, request.state_len = -1, 0


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

    def write(self, state: int, encoded: Tensor) -> None:
        """Project encoder states `(n, hidden)` and keep them."""
        for path, layer in self.layers.items():
            for kept, rows in zip(self.memory[path], layer.project(encoded)):
                kept[state, : len(rows)] = rows

    def scrub(self, state: int) -> None:
        """Zero a state: NaN would reach whoever gets it next."""
        for keys, values in self.memory.values():
            keys[state], values[state] = 0, 0

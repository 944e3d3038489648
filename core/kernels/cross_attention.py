"""Cross-attention over encoder states that were projected once. The specification is `sdk.layers.CrossAttention.reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from sdk.layers import CrossAttention

from ..recording.tape import anew, repeat
from ..step import StepHolder, StepTensors

if TYPE_CHECKING:
    from .cross_attention_compiled import CompiledCrossAttention


class StateAttention:
    """Fills one `sdk.layers.CrossAttention`.

    Args:
        layer: The layer, for its shape.
        keys, values: `(states, rows, kv_heads, head_dim)`.
        step: Where the running step is found.
        index: Which of the model's layers of cross-attention this is.
        compiled: The compiled kernel, where it can be used.
    """

    def __init__(
        self,
        layer: CrossAttention,
        keys: Tensor,
        values: Tensor,
        step: StepHolder,
        index: int,
        compiled: CompiledCrossAttention | None = None,
    ) -> None:
        self.layer, self.keys, self.values, self.step, self.compiled = layer, keys, values, step, compiled
        self.index = index
        self.group = layer.num_heads // layer.num_kv_heads

    def __call__(self, q: Tensor, encoder_states: Tensor | None = None) -> Tensor:
        if self.compiled is None or not self.compiled.reads(q):
            return self._in_parts(q)
        out = self.compiled.kernel.empty(q)
        repeat(self._compiled, q, out)
        return out

    def _compiled(self, q: Tensor, out: Tensor) -> None:
        assert self.compiled is not None
        self.compiled(self._shown(q), q, out)

    @anew
    def _in_parts(self, q: Tensor) -> Tensor:
        return self.attend(self._shown(q), q)

    def attend(self, step: StepTensors, q: Tensor) -> Tensor:
        """`(tokens, heads, head_dim) -> (tokens, heads * head_dim)`, one sequence after the other."""
        out = q.new_empty(len(q), self.layer.num_heads * self.layer.head_dim)
        first = 0
        for s in step.order:  # the whole state of a request is read for all of its tokens at once
            last = first + s.count
            out[first:last] = self._one(q[first:last], s.request.state, s.request.state_len)
            first = last
        return out

    def _shown(self, q: Tensor) -> StepTensors:
        """The running step, after those were given what they want to see who do."""
        step = self.step.tensors
        if step.watched:
            self._show(q, step)
        return step

    def _show(self, q: Tensor, step: StepTensors) -> None:
        """Give those who want to see it the weights of their prompts' tokens."""
        first = 0
        for s in step.order:
            wanted = s.request.cross_attention_heads if s.start < s.request.prompt_len else ()
            for at, (layer, head) in enumerate(wanted):
                if layer == self.index:
                    keys = self.keys[s.request.state, : s.request.state_len, head // self.group]
                    scores = (q[first : first + s.count, head] @ keys.T).float() * self.layer.scale
                    s.request.note_attention(at, s.start, scores.softmax(dim=-1))
            first += s.count

    def _one(self, q: Tensor, state: int, length: int) -> Tensor:
        k, v = (x[state, :length].repeat_interleave(self.group, dim=1) for x in (self.keys, self.values))
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, scale=self.layer.scale)
        return attended.squeeze(0).transpose(0, 1).flatten(1)


__all__ = ["StateAttention"]

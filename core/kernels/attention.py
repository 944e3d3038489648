"""Attention over pages, for batches that mix whole prompts, chunks of prompts and decoded tokens; and without pages, for
encoders. The specification is `sdk.layers.attention_reference`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sdk.layers import Attention, EncoderAttention
from sdk.layers.rotary import rotate

from ..recording.tape import anew, repeat
from ..step import AttentionGroup, StepHolder, StepTensors
from ..wanted import OutOfOrder

if TYPE_CHECKING:
    from .attention_compiled import CompiledAttention

MOST_SCORES = 2**24
"""Scores that are written out at once where no fused kernel serves: 64 MiB of float32."""


class PagedAttention:
    """Fills one `sdk.layers.Attention`: writes the step's keys and values to their pages and attends over them.

    Args:
        layer: The layer, for its shape and options.
        keys, values: `(pages, page_size, kv_heads, head_dim)`, this layer's part of the pool.
        step: Where the running step is found.
        compiled: The compiled kernels, where they can be used; plain torch serves otherwise.

    Attributes:
        is_last: No other attention of the model is called after this one, so it serves only the rows that are wanted.
    """

    def __init__(
        self,
        layer: Attention,
        keys: Tensor,
        values: Tensor,
        step: StepHolder,
        compiled: CompiledAttention | None = None,
    ) -> None:
        self.layer, self.keys, self.values, self.step, self.compiled = layer, keys, values, step, compiled
        self.is_last = False
        self.group = layer.num_heads // layer.num_kv_heads
        self.plain = layer.logit_softcap is None and layer.sinks is None and layer.alibi_slopes is None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None) -> Tensor:
        if self.compiled is None or not self.compiled.rotates(q, k, v):
            return self._in_parts(q, k, v, positions)
        turned, out = torch.empty(q.shape, dtype=q.dtype), self.compiled.kernel.empty(q)
        repeat(self._compiled, q, k, v, positions, turned, out, again=self._recorded)
        return out

    def _compiled(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, turned: Tensor, out: Tensor) -> None:
        """All of it by the compiled kernels: the rotated q to `turned`, the rest to `out`."""
        assert self.compiled is not None
        step = self.step.tensors
        _check_order(step)
        self.compiled.rotate_and_write(step, q, k, v, positions, turned)
        if self.is_last and step.wanted is not None:
            self.compiled.attend_wanted(step, step.wanted, turned, out)
            step.wanted.queries = q
        else:
            self.compiled.attend(step, turned, out)

    def _recorded(
        self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, turned: Tensor, out: Tensor
    ) -> Callable[[], None] | None:
        """The same for later steps over these places; None where a model has positions of its own."""
        assert self.compiled is not None
        if positions is not None and positions is not self.step.tensors.positions:
            return None
        from .attention_recorded import RecordedAttention

        return RecordedAttention(self.compiled, self.step, q, k, v, turned, out)

    @anew
    def _in_parts(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None) -> Tensor:
        step = self.step.tensors
        _check_order(step)
        q, k = self._rotate_and_write(step, q, k, v, positions)
        if self.compiled is not None:
            return self.compiled.attend(step, q)
        if len(step.groups) == 1 and step.groups[0].real is None:
            return self._attend(step.groups[0], q, k, v).flatten(0, 1)
        out = q.new_empty(q.shape[0], self.layer.num_heads * self.layer.head_dim)
        for group in step.groups:
            result = self._attend(group, q, k, v).flatten(0, 1)
            out[group.first : group.last] = result if group.real is None else result[group.real]
        return out

    def _rotate_and_write(
        self, step: StepTensors, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rotary = self.layer.rotary
        if rotary is not None:
            cos, sin = step.cos_sin(rotary, q.dtype, positions)
            q, k = rotate(q, cos, sin, rotary.interleaved), rotate(k, cos, sin, rotary.interleaved)
        self.keys.flatten(0, 1).index_copy_(0, step.cache_slots, k)
        self.values.flatten(0, 1).index_copy_(0, step.cache_slots, v)
        return q, k

    def _gather(self, pool: Tensor, group: AttentionGroup) -> Tensor:
        """The group's pages end to end: `(sequences, keys, kv_heads, head_dim)`."""
        pages = pool.flatten(1).index_select(0, group.pages.flatten())  # several times as fast as pool[pages]
        return pages.view(len(group.pages), -1, *pool.shape[2:])

    def _attend(self, group: AttentionGroup, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of one group: `(sequences, queries, heads * head_dim)`."""
        if group.real is None:
            shape = group.rows.shape
            q, k, v = (x[group.first : group.last].view(*shape, *x.shape[1:]) for x in (q, k, v))
        else:
            q = q[group.rows]
            if group.fresh:
                k, v = k[group.rows], v[group.rows]
        if not group.fresh:
            k, v = self._gather(self.keys, group), self._gather(self.values, group)
        if group.num_queries == 1 and self.plain:
            return self._decode(group, q, k, v)
        window = self.layer.sliding_window
        k, v = (x.repeat_interleave(self.group, dim=2) if self.group > 1 else x for x in (k, v))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if not self.plain:
            return self._with_extras(group, q, k, v)
        if group.fresh and (window is None or window >= group.num_queries):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.layer.scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask(window), scale=self.layer.scale)
        return out.transpose(1, 2).flatten(2)

    def _decode(self, group: AttentionGroup, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One query a sequence: the heads that share keys become the rows of one product, so keys are read once."""
        q = q.reshape(q.shape[0], self.layer.num_kv_heads, self.group, self.layer.head_dim)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        mask = group.mask(self.layer.sliding_window)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.layer.scale)
        return out.flatten(1).unsqueeze(1)

    def _with_extras(self, group: AttentionGroup, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Soft caps, ALiBi and sinks, written out, for some queries at a time: all scores at once may be more than there is
        memory. Shapes: `(sequences, heads, queries | keys, head_dim)`."""
        rows = max(1, MOST_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
        parts = [self._some_queries(group, slice(i, i + rows), q, k, v) for i in range(0, q.shape[2], rows)]
        return torch.cat(parts, dim=2).transpose(1, 2).flatten(2)

    def _some_queries(self, group: AttentionGroup, some: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        layer = self.layer
        scores = (q[:, :, some] @ k.transpose(-1, -2)).float() * layer.scale
        if layer.logit_softcap is not None:
            scores = layer.logit_softcap * torch.tanh(scores / layer.logit_softcap)
        if layer.alibi_slopes is not None:
            scores = scores + layer.alibi_slopes.float()[:, None, None] * group.distances()[:, None, some]
        scores = scores.masked_fill(~group.mask(layer.sliding_window)[:, :, some], float("-inf"))
        if layer.sinks is not None:
            sinks = layer.sinks.float()[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat((scores, sinks), dim=-1)
        weights = scores.softmax(dim=-1)[..., : k.shape[2]].to(v.dtype)
        return weights @ v


def _check_order(step: StepTensors) -> None:
    if step.wanted is not None and step.wanted.queries is not None:
        raise OutOfOrder


class FullAttention:
    """Fills one `sdk.layers.EncoderAttention` with torch's fused attention."""

    def __init__(self, layer: EncoderAttention) -> None:
        self.scale = layer.scale

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        seen = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale).transpose(1, 2).flatten(2)

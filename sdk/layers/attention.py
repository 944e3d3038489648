"""Attention layers. What they compute stands here in plain torch; an engine fills them with paged, batched kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Layer
from .rotary import RotaryEmbedding


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool = True,
    sliding_window: int | None = None,
    logit_softcap: float | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) of one sequence: the specification of every kernel.

    The queries are the *last* `n` of the `m` positions, so that a chunk of a prompt and a decoded token are cases of
    the same.

    Args:
        q: `(n, heads, head_dim)`.
        k: `(m, kv_heads, head_dim)`, `m >= n`; query head `h` reads key/value head `h // (heads / kv_heads)`.
        v: As `k`.
        scale: Multiplies the scores.
        causal: A query sees its own position and the earlier ones.
        sliding_window: A query sees at most this many positions, its own included.
        logit_softcap: `cap * tanh(score / cap)`, as Gemma 2 does.
        alibi_slopes: `(heads,)`; adds `slope * (key position - query position)` (Press et al. 2022).
        sinks: `(heads,)`; a learned score that takes part in the softmax and has no value (GPT-OSS).

    Returns:
        `(n, heads * head_dim)` in q's dtype.
    """
    n, heads, _ = q.shape
    m, kv_heads, _ = k.shape
    group = heads // kv_heads
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = torch.einsum("nhd,mhd->hnm", q, k).float() * scale
    if logit_softcap is not None:
        scores = logit_softcap * torch.tanh(scores / logit_softcap)
    distance = torch.arange(m, device=q.device)[None, :] - torch.arange(m - n, m, device=q.device)[:, None]
    if alibi_slopes is not None:
        scores = scores + alibi_slopes.float()[:, None, None] * distance
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if causal:
        hidden |= distance > 0
    if sliding_window is not None:
        hidden |= distance <= -sliding_window
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.float()[:, None, None].expand(heads, n, 1)), dim=-1)
    weights = scores.softmax(dim=-1)[..., :m].to(v.dtype)
    return torch.einsum("hnm,mhd->nhd", weights, v).flatten(1)


class Attention(Layer):
    """Causal self-attention over everything the sequence has seen: a hole that an engine fills with its paged K/V.

    Args:
        num_heads: Query heads.
        head_dim: Width of a head.
        scale: Multiplies the scores; `head_dim ** -0.5` when not given.
        num_kv_heads: Key/value heads; as many as query heads when not given.
        sliding_window: How many positions a query sees, its own included; `None`: all.
        logit_softcap: Soft cap on the scores.
        alibi_slopes: `(num_heads,)` slopes.
        sinks: `(num_heads,)` learned sink scores.
        rotary: Applied to q and k first, so that a kernel can fuse it with writing K/V; needs `positions`.

    Shapes: q `(tokens, heads, head_dim)`, k and v `(tokens, kv_heads, head_dim)`, positions `(tokens,)` →
    `(tokens, heads * head_dim)`.
    """

    alibi_slopes: Tensor | None
    sinks: Tensor | None

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        scale: float | None = None,
        num_kv_heads: int | None = None,
        *,
        sliding_window: int | None = None,
        logit_softcap: float | None = None,
        alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None,
        rotary: RotaryEmbedding | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.num_kv_heads = num_kv_heads or num_heads
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{num_heads} query heads cannot share {self.num_kv_heads} key/value heads evenly")
        self.scale = head_dim**-0.5 if scale is None else scale
        self.sliding_window, self.logit_softcap = sliding_window, logit_softcap
        for name, given in (("alibi_slopes", alibi_slopes), ("sinks", sinks)):
            if given is None or isinstance(given, nn.Parameter):
                setattr(self, name, given)
            else:  # follows the model to its device
                self.register_buffer(name, given, persistent=False)
        # In a tuple: many layers share one rotary module, which is registered once, where the model keeps it.
        self._rotary = (rotary,)

    @property
    def rotary(self) -> RotaryEmbedding | None:
        """The rotary embedding applied to q and k, if any."""
        return self._rotary[0]

    def reference(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None) -> Tensor:
        if self.rotary is not None:
            if positions is None:
                raise ValueError("Attention(rotary=…) needs positions: attn(q, k, v, positions)")
            q, k = self.rotary(positions, q, k)
        return attention_reference(
            q,
            k,
            v,
            scale=self.scale,
            sliding_window=self.sliding_window,
            logit_softcap=self.logit_softcap,
            alibi_slopes=self.alibi_slopes,
            sinks=self.sinks,
        )

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, kv_heads={self.num_kv_heads}, head_dim={self.head_dim}"


class EncoderAttention(Layer):
    """Attention in both directions over items of equal length, as vision towers use it; shorter ones are padded.

    Shapes: q `(items, n, heads, head_dim)`, k, v `(items, m, heads, head_dim)`, mask `(items, m)` bool, true for the keys
    that are seen, at least one of each item → `(items, n, heads * head_dim)`.
    """

    def __init__(self, num_heads: int, head_dim: int, scale: float | None = None, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.scale = head_dim**-0.5 if scale is None else scale

    def reference(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k).float() * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        weights = scores.softmax(dim=-1).to(v.dtype)
        return torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(-2)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, head_dim={self.head_dim}"

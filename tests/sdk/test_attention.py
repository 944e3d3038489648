"""The reference attention against a formula written out, position by position."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sdk.layers import Attention, EncoderAttention, attention_reference


def by_hand(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    sliding_window: int | None = None,
    logit_softcap: float | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    causal: bool = True,
) -> Tensor:
    """One query, one head, one key at a time, in float64."""
    n, heads, width = q.shape
    m, kv_heads, _ = k.shape
    out = torch.zeros(n, heads, width, dtype=torch.float64)
    for i in range(n):
        position = m - n + i
        for h in range(heads):
            g = h * kv_heads // heads
            total, mixed = 0.0, torch.zeros(width, dtype=torch.float64)
            if sinks is not None:
                total += math.exp(float(sinks[h]))
            for j in range(m):
                if (causal and j > position) or (sliding_window is not None and j <= position - sliding_window):
                    continue
                score = float(q[i, h].double() @ k[j, g].double()) * scale
                if logit_softcap is not None:
                    score = logit_softcap * math.tanh(score / logit_softcap)
                if alibi_slopes is not None:
                    score -= float(alibi_slopes[h]) * (position - j)
                total += math.exp(score)
                mixed += math.exp(score) * v[j, g].double()
            out[i, h] = mixed / total
    return out.reshape(n, -1).float()


def tensors(n: int, m: int, heads: int, kv_heads: int, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 100 + m)
    shapes = ((n, heads, width), (m, kv_heads, width), (m, kv_heads, width))
    q, k, v = (torch.randn(s, generator=generator) for s in shapes)
    return q, k, v


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 7), (1, 9), (3, 9)], ids=["one", "prompt", "decode", "chunk"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sliding_window": 1},
        {"sliding_window": 4},
        {"sliding_window": 50},
        {"logit_softcap": 0.7},
        {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
        {"sinks": torch.tensor([0.3, -1.0, 2.0, 0.0])},
        {"causal": False},
        {"sliding_window": 3, "logit_softcap": 2.0, "sinks": torch.zeros(4)},
    ],
    ids=lambda o: "+".join(o) or "plain",
)
def test_attention_is_the_written_out_formula(
    n: int, m: int, heads: int, kv_heads: int, options: dict[str, Any]
) -> None:
    q, k, v = tensors(n, m, heads, kv_heads)
    ours = attention_reference(q, k, v, scale=0.4, **options)
    torch.testing.assert_close(ours, by_hand(q, k, v, scale=0.4, **options), atol=1e-5, rtol=1e-5)


def test_attention_agrees_with_torch_for_grouped_heads() -> None:
    q, k, v = tensors(11, 11, 6, 2)
    theirs = F.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(Attention(6, 8, num_kv_heads=2)(q, k, v), theirs.transpose(0, 1).flatten(1))


def test_chunks_give_what_the_whole_prompt_gives() -> None:
    q, k, v = tensors(12, 12, 4, 2)
    whole = attention_reference(q, k, v, scale=1.0, sliding_window=5)
    parts = [
        attention_reference(q[a:b], k[:b], v[:b], scale=1.0, sliding_window=5) for a, b in ((0, 5), (5, 6), (6, 12))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_output_has_the_type_of_the_queries() -> None:
    q, k, v = (t.bfloat16() for t in tensors(3, 3, 2, 2))
    assert attention_reference(q, k, v, scale=1.0).dtype == torch.bfloat16


def test_encoder_attention_sees_everything_within_an_item_and_nothing_beyond() -> None:
    q, k, v = (torch.randn(3, 5, 2, 8) for _ in range(3))
    theirs = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
    torch.testing.assert_close(EncoderAttention(2, 8)(q, k, v), theirs.transpose(1, 2).flatten(2))


def test_encoder_attention_of_padded_items_sees_the_keys_of_the_mask_alone() -> None:
    q, k, v = (torch.randn(3, 5, 2, 8) for _ in range(3))
    lengths = [5, 1, 3]
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    padded = EncoderAttention(2, 8)(q, k.masked_fill(~mask[..., None, None], 1e4), v, mask)
    for i, n in enumerate(lengths):
        alone = EncoderAttention(2, 8)(q[i : i + 1], k[i : i + 1, :n], v[i : i + 1, :n])
        torch.testing.assert_close(padded[i : i + 1], alone)
    theirs = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=mask[:, None, None])
    torch.testing.assert_close(EncoderAttention(2, 8)(q, k, v, mask), theirs.transpose(1, 2).flatten(2))


def test_heads_that_do_not_share_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="6 query heads cannot share 4 key/value heads"):
        Attention(6, 8, num_kv_heads=4)


def test_a_kernel_takes_the_place_of_the_reference_and_gives_it_back() -> None:
    layer = Attention(2, 8)
    q, k, v = tensors(3, 3, 2, 2)
    expected = layer(q, k, v)
    layer.fill(lambda q, k, v, positions=None: q.flatten(1) * 0)
    assert not layer(q, k, v).any()
    layer.fill(None)
    assert torch.equal(layer(q, k, v), expected)

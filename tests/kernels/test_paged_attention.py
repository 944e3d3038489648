"""Paged attention, in plain torch and compiled, against the layer's reference: batches that mix everything."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from core.cache.pages import PagePool
from core.kernels import attention
from core.kernels.attention import PagedAttention
from core.kernels.choice import compiled_kernels
from core.request import Request
from core.sampling import SamplingParams
from core.scheduler import Scheduled
from core.step import StepBuilder, StepHolder
from sdk.layers import Attention, RotaryEmbedding

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}
# (tokens already in the cache, tokens computed now): whole prompts, chunks, decoded tokens, page edges.
BATCHES = {
    "one token": [(0, 1)],
    "one prompt": [(0, 33)],
    "prompts of one length": [(0, 16), (0, 16), (0, 16)],
    "ragged prompts": [(0, 5), (0, 9), (0, 16), (0, 17), (0, 31)],
    "decoding": [(1, 1), (7, 1), (8, 1), (15, 1), (16, 1), (40, 1)],
    "chunks": [(5, 3), (8, 8), (16, 7), (3, 12)],
    "everything": [(0, 9), (20, 1), (4, 5), (0, 1), (33, 1), (8, 16), (0, 24), (63, 1)],
}


def make_request(number: int, length: int) -> Request:
    return Request(
        request_id=str(number),
        token_ids=list(range(length)),
        prompt_len=length,
        params=SamplingParams(),
        max_tokens=1,
        eos_token_ids=frozenset(),
        seed=0,
        slot=number,
    )


def run_batch(
    layer: Attention, batch: list[tuple[int, int]], dtype: torch.dtype, page_size: int, *, compiled: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the kernel gives and what the reference says, for each sequence of the batch."""
    generator = torch.Generator().manual_seed(sum(a * 31 + b for a, b in batch))
    shape = (layer.num_kv_heads, layer.head_dim)
    pool = PagePool(256, page_size)
    keys, values = (torch.zeros(257, page_size, *shape, dtype=dtype) for _ in "kv")
    holder = StepHolder()
    fast = compiled_kernels(keys) if compiled else None
    kernel = PagedAttention(layer, keys, values, holder, fast and fast.attention(layer, keys, values))
    builder = StepBuilder(len(batch), 128, page_size, torch.device("cpu"))
    data, requests = [], []
    for i, (past, count) in enumerate(batch):
        heads = (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads)
        qkv = torch.randn(past + count, sum(heads), layer.head_dim, generator=generator).to(dtype)
        data.append(qkv.split(heads, dim=1))
        request = make_request(i, past + count)
        pages = pool.take(pool.pages_for(past + count))
        assert pages is not None
        request.pages = pages[::-1]
        requests.append(request)

    def step(plan: list[Scheduled]) -> dict[int, torch.Tensor]:
        tensors = builder.build(plan)
        holder.current = tensors
        parts = [[x[s.start : s.start + s.count] for x in data[s.request.slot]] for s in tensors.order]
        fused = torch.cat([torch.cat(p, dim=1) for p in parts])
        q, k, v = fused.split((layer.num_heads, layer.num_kv_heads, layer.num_kv_heads), dim=1)
        out = kernel(q, k, v, tensors.positions)
        return dict(zip((s.request.slot for s in tensors.order), out.split([s.count for s in tensors.order])))

    earlier = [Scheduled(r, 0, past) for r, (past, _) in zip(requests, batch) if past]
    if earlier:
        step(earlier)
    result = step([Scheduled(r, past, count) for r, (past, count) in zip(requests, batch)])
    expected = [layer.reference(*qkv, torch.arange(len(qkv[0])))[-count:] for qkv, (_, count) in zip(data, batch)]
    return [result[i] for i in range(len(batch))], expected


def check(
    layer: Attention, batch: list[tuple[int, int]], dtype: torch.dtype, page_size: int, *, compiled: bool
) -> None:
    ours, expected = run_batch(layer, batch, dtype, page_size, compiled=compiled)
    for i, (a, b) in enumerate(zip(ours, expected)):
        torch.testing.assert_close(
            a.float(), b.float(), rtol=0, atol=TOLERANCE[dtype], msg=lambda m, i=i: f"sequence {i}: {m}"
        )


def rope(head_dim: int) -> RotaryEmbedding:
    config = SimpleNamespace(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, max_position_embeddings=128
    )
    return RotaryEmbedding(config, head_dim)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_every_mix_of_prompts_chunks_and_decoding(
    batch: list[tuple[int, int]], dtype: torch.dtype, compiled: bool
) -> None:
    check(Attention(4, 32, num_kv_heads=2, rotary=rope(32)), batch, dtype, 8, compiled=compiled)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 1), (6, 2), (8, 1)])
@pytest.mark.parametrize("head_dim", [16, 40, 64, 128, 256])
def test_every_head_count_and_size(heads: int, kv_heads: int, head_dim: int, compiled: bool) -> None:
    layer = Attention(heads, head_dim, num_kv_heads=kv_heads, rotary=rope(head_dim))
    check(layer, BATCHES["everything"], torch.float32, 16, compiled=compiled)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("page_size", [1, 3, 8, 32, 64])
@pytest.mark.parametrize("window", [None, 1, 5, 8, 100])
def test_every_window_and_page_size(window: int | None, page_size: int, compiled: bool) -> None:
    check(
        Attention(4, 16, num_kv_heads=2, sliding_window=window),
        BATCHES["everything"],
        torch.float32,
        page_size,
        compiled=compiled,
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize(
    "extra",
    [
        {"logit_softcap": 2.0},
        {"logit_softcap": 50.0},
        {"logit_softcap": 2.0, "sliding_window": 6},
        {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
        {"sinks": torch.tensor([0.0, 1.0, -1.0, 3.0])},
        {"scale": 0.7},
        {"logit_softcap": 1.0, "sinks": torch.ones(4), "sliding_window": 6},
    ],
    ids=["softcap", "high softcap", "softcap and window", "alibi", "sinks", "scale", "all"],
)
def test_soft_caps_alibi_and_sinks(extra: dict[str, object], compiled: bool) -> None:
    layer = Attention(4, 16, num_kv_heads=2, **extra)  # type: ignore[arg-type]
    check(layer, BATCHES["everything"], torch.float32, 8, compiled=compiled)


@pytest.mark.parametrize("most", [1, 300])
def test_scores_are_written_out_for_some_queries_at_a_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_SCORES", most)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    layer = Attention(4, 16, num_kv_heads=2, logit_softcap=1.0, alibi_slopes=slopes, sliding_window=6)
    for batch in BATCHES.values():
        check(layer, batch, torch.float32, 8, compiled=False)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
def test_interleaved_and_partial_rotary(compiled: bool) -> None:
    parameters = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = SimpleNamespace(rope_parameters=parameters, max_position_embeddings=128)
    for interleaved in (False, True):
        rotary = RotaryEmbedding(config, 32, interleaved=interleaved)
        layer = Attention(4, 32, num_kv_heads=2, rotary=rotary)
        check(layer, BATCHES["everything"], torch.float32, 8, compiled=compiled)

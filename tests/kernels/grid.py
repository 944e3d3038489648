"""The shapes on which every form of an op is compared with its reference, and what runs a batch through paged attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.cache.pages import PagePool
from core.kernels.base import Kernels
from core.kernels.choice import CompiledKernels
from core.kernels.plain import PlainKernels
from core.request import Request
from core.sampling import SamplingParams
from core.scheduler import Scheduled
from core.step import StepBuilder, StepHolder
from sdk.layers import Attention, RotaryEmbedding

Batch = Sequence[tuple[int, int]]

CUDA = torch.cuda.is_available()
FORMS = ("torch", "compiled", "triton")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# (tokens already in the cache, tokens computed now): whole prompts, chunks, decoded tokens, page edges.
BATCHES: dict[str, Batch] = {
    "one token": [(0, 1)],
    "one prompt": [(0, 33)],
    "prompts of one length": [(0, 16), (0, 16), (0, 16)],
    "ragged prompts": [(0, 5), (0, 9), (0, 16), (0, 17), (0, 31)],
    "decoding": [(1, 1), (7, 1), (8, 1), (15, 1), (16, 1), (40, 1)],
    "chunks": [(5, 3), (8, 8), (16, 7), (3, 12)],
    "a few": [(0, 9), (33, 1), (7, 5)],
    "everything": [(0, 9), (20, 1), (4, 5), (0, 1), (33, 1), (8, 16), (0, 24), (63, 1)],
}
PAST_A_TILE: Batch = [(0, 5), (48, 18), (65, 1)]
"""More keys than any form's tile has, and more rows too where four heads share them."""
# (query heads, key/value heads)
HEADS = [(1, 1), (4, 4), (4, 1), (6, 2), (8, 1)]
HEAD_SIZES = [16, 40, 64, 80, 128, 256]
PAGE_SIZES = [1, 3, 8, 32, 64]
WINDOWS = [None, 1, 5, 8, 100]
EXTRAS: dict[str, dict[str, Any]] = {
    "softcap": {"logit_softcap": 2.0},
    "high softcap": {"logit_softcap": 50.0},
    "softcap and window": {"logit_softcap": 2.0, "sliding_window": 6},
    "alibi": {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
    "sinks": {"sinks": torch.tensor([0.0, 1.0, -1.0, 3.0])},
    "scale": {"scale": 0.7},
    "all": {"logit_softcap": 1.0, "sinks": torch.ones(4), "sliding_window": 6},
}


def device_of(form: str) -> torch.device:
    """Where a form runs: Triton on a GPU where there is one, in its interpreter otherwise."""
    return torch.device("cuda" if form == "triton" and CUDA else "cpu")


def dtypes_of(form: str) -> list[torch.dtype]:
    """The dtypes in which a form is compared. Triton's interpreter multiplies matrices of bfloat16 wrongly."""
    if form == "triton":
        return [torch.float32, torch.float16, *([torch.bfloat16] if CUDA else [])]
    return [torch.float32, torch.bfloat16]


FORMS_AND_DTYPES = [
    pytest.param(form, dtype, id=f"{form}-{str(dtype).removeprefix('torch.')}")
    for form in FORMS
    for dtype in dtypes_of(form)
]
FORMS_AND_HALVES = [case for case in FORMS_AND_DTYPES if case.values[1] is not torch.float32]
"""The dtypes that models are served in. Tiles are larger then: of 64 rows and 64 keys in Triton, up to heads of 128."""


def kernels_of(form: str, dtype: torch.dtype) -> Kernels:
    """All kernels of one form."""
    if form == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed: it has builds for Linux alone")
        from core.kernels.triton.backend import TritonKernels

        return TritonKernels()
    return PlainKernels(CompiledKernels(dtype) if form == "compiled" else None)


def rope(head_dim: int, *, interleaved: bool = False, partial: float = 1.0) -> RotaryEmbedding:
    """A rotary embedding of heads of this size."""
    parameters = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": partial}
    config = SimpleNamespace(rope_parameters=parameters, max_position_embeddings=128)
    return RotaryEmbedding(config, head_dim, interleaved=interleaved)


def request(number: int, length: int, **more: Any) -> Request:
    """A sequence of so many tokens."""
    return Request(
        request_id=str(number),
        token_ids=list(range(length)),
        prompt_len=length,
        params=SamplingParams(),
        max_tokens=1,
        eos_token_ids=frozenset(),
        seed=0,
        slot=number,
        **more,
    )


def run_batch(
    kernels: Kernels, layer: Attention, batch: Batch, dtype: torch.dtype, page_size: int, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """What a form gives, and what the reference says in float32 of the same inputs, for each sequence of the batch."""
    generator = torch.Generator().manual_seed(sum(a * 31 + b for a, b in batch))
    most = max(a + b for a, b in batch)
    pages = sum(-(-(a + b) // page_size) for a, b in batch)
    pool, holder = PagePool(pages, page_size), StepHolder()
    shape = (pages + 1, page_size, layer.num_kv_heads, layer.head_dim)
    keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in "kv")
    kernel = kernels.attention(layer.to(device), keys, values, holder)
    builder = StepBuilder(len(batch), most, page_size, device)
    data, requests = [], []
    for i, (past, count) in enumerate(batch):
        heads = (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads)
        qkv = torch.randn(past + count, sum(heads), layer.head_dim, generator=generator).to(device, dtype)
        data.append(qkv.split(heads, dim=1))
        taken = pool.take(pool.pages_for(past + count))
        assert taken is not None
        requests.append(request(i, past + count, pages=taken[::-1]))

    def step(plan: list[Scheduled]) -> dict[int, Tensor]:
        holder.current = tensors = builder.build(plan)
        parts = [[x[s.start : s.start + s.count] for x in data[s.request.slot]] for s in tensors.order]
        fused = torch.cat([torch.cat(p, dim=1) for p in parts])
        q, k, v = fused.split((layer.num_heads, layer.num_kv_heads, layer.num_kv_heads), dim=1)
        out = kernel(q, k, v, tensors.positions)
        return dict(zip((s.request.slot for s in tensors.order), out.split([s.count for s in tensors.order])))

    earlier = [Scheduled(r, 0, past) for r, (past, _) in zip(requests, batch) if past]
    if earlier:
        step(earlier)
    result = step([Scheduled(r, past, count) for r, (past, count) in zip(requests, batch)])
    expected = [
        layer.reference(*(x.float() for x in qkv), torch.arange(len(qkv[0]), device=device))[-count:]
        for qkv, (_, count) in zip(data, batch)
    ]
    return [result[i] for i in range(len(batch))], expected


def check_attention(form: str, layer: Attention, batch: Batch, dtype: torch.dtype, page_size: int) -> None:
    """A form gives what the reference says."""
    ours, expected = run_batch(kernels_of(form, dtype), layer, batch, dtype, page_size, device_of(form))
    for i, (a, b) in enumerate(zip(ours, expected)):
        torch.testing.assert_close(
            a.float(), b.float(), rtol=0, atol=TOLERANCE[dtype], msg=lambda m, i=i: f"sequence {i}: {m}"
        )

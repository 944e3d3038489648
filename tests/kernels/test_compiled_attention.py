"""What is the compiled attention's own: tiles of 64 keys, jobs for threads, and the forms for machines with less."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.kernels import attention_compiled, jobs
from core.kernels._attention import SPAN
from core.kernels.attention_compiled import AttentionKernel, PagesOf
from core.kernels.compiled import GRAIN
from core.kernels.jobs import make_jobs
from sdk.layers import Attention, attention_reference
from tests.kernels.grid import EXTRAS, TOLERANCE, Batch, check_attention, rope

# Around the edges of tiles of 64 keys, and of blocks of queries.
LONG: dict[str, Batch] = {
    "tile edges": [(0, 63), (0, 64), (0, 65), (63, 1), (64, 1), (127, 2)],
    "blocks": [(0, 200), (7, 193), (130, 71)],
    "everything": [(300, 1), (0, 130), (100, 30), (255, 1), (64, 64), (0, 1)],
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
BATCHES = pytest.mark.parametrize("batch", LONG.values(), ids=LONG)
MORE: dict[str, dict[str, Any]] = {
    **EXTRAS,
    "window of a tile": {"sliding_window": 64},
    "window over tiles": {"sliding_window": 70},
    "negative scale": {"scale": -0.2},
}


@DTYPES
@BATCHES
@pytest.mark.parametrize("head_dim", [24, 64])
def test_keys_in_many_tiles(batch: Batch, head_dim: int, dtype: torch.dtype) -> None:
    check_attention("compiled", Attention(4, head_dim, num_kv_heads=2, rotary=rope(head_dim)), batch, dtype, 16)


@pytest.mark.parametrize("extra", MORE.values(), ids=MORE)
def test_everything_a_layer_asks_for_over_many_tiles(extra: dict[str, Any]) -> None:
    check_attention("compiled", Attention(4, 16, num_kv_heads=2, **extra), LONG["everything"], torch.float32, 8)


@pytest.mark.parametrize("heads", [(14, 2), (32, 8), (12, 1)], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_jobs_of_any_size_and_threads(heads: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROWS", rows)
    monkeypatch.setattr(jobs, "FEW_ROWS", rows)
    layer = Attention(heads[0], 32, num_kv_heads=heads[1], rotary=rope(32))
    check_attention("compiled", layer, [*LONG["everything"], *[(9, 1)] * 10], torch.float32, 16)


@BATCHES
@pytest.mark.parametrize("head_dim", [16, 33, 64])
def test_products_in_float32_where_the_machine_has_no_others(
    batch: Batch, head_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_compiled, "DOTS_BF16", False)
    check_attention("compiled", Attention(4, head_dim, num_kv_heads=2), batch, torch.bfloat16, 16)


PORTABLE = """
import torch
from core.kernels import _lanes
from sdk.layers import Attention, attention_reference
from tests.kernels.grid import check_attention, rope
from tests.kernels.test_compiled_attention import LONG
assert not _lanes.WIDE and not _lanes.DOTS_BF16
for dtype in (torch.float32, torch.bfloat16):
    check_attention("compiled", Attention(4, 40, num_kv_heads=2, rotary=rope(40)), LONG["everything"], dtype, 16)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_without_wide_vectors(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PORTABLE], check=True, env=environment, cwd=Path(__file__).parents[2])


def attend(kernel: AttentionKernel, q: Tensor, kv: Tensor, parts: list[tuple[int, int, int]]) -> Tensor:
    """Queries `first … last - 1` of sequence `slot`, for each part: q and kv `(sequences, length, …)`, side by side as pages."""
    slots, firsts, lasts = np.array(parts).T
    counts = lasts - firsts
    rows = torch.cat([q[slot, first:last] for slot, first, last in parts])
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    made = make_jobs(
        slots.astype(np.int32), starts, counts, lasts.astype(np.int32), q.shape[2], kv.shape[3], q.shape[3]
    )
    table = np.arange(len(q), dtype=np.int32)[:, None]
    return kernel(rows, PagesOf.pool(kv[0], kv[1]), table, made)


@pytest.mark.parametrize("extra", MORE.values(), ids=MORE)
def test_bfloat16_is_as_near_to_float32_as_it_can_keep(extra: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options = {"scale": 0.25} | extra
    names = {"logit_softcap": "cap", "sliding_window": "window", "alibi_slopes": "slopes"}
    kernel = AttentionKernel(4, 2, 16, dtype=torch.bfloat16, **{names.get(k, k): v for k, v in options.items()})
    q, kv = torch.randn(1, 200, 4, 16).bfloat16(), torch.randn(2, 1, 200, 2, 16).bfloat16()
    exact = attention_reference(q[0].float(), *kv[:, 0].float(), **options)
    made = attend(kernel, q, kv, [(0, 0, 200)]).float()
    torch.testing.assert_close(made, exact, rtol=2**-7, atol=2**-7)


@DTYPES
def test_a_query_does_not_notice_its_company_or_its_chunk(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kernel = AttentionKernel(8, 2, 64, 0.125, dtype, window=90, cap=5.0)
    q, kv = torch.randn(3, 150, 8, 64).to(dtype), torch.randn(2, 3, 150, 2, 64).to(dtype)
    alone = attend(kernel, q, kv, [(1, 0, 150)])
    chunks = [attend(kernel, q, kv, [(1, a, b)]) for a, b in ((0, 50), (50, 51), (51, 150))]
    assert torch.equal(torch.cat(chunks), alone)
    among = attend(kernel, q, kv, [(0, 149, 150), (1, 149, 150), (1, 0, 149), (2, 3, 90)])
    assert torch.equal(among[1:151].roll(-1, 0), alone)


@DTYPES
@pytest.mark.parametrize(
    "extra",
    [{}, {"window": 300}, {"window": 20}, {"sinks": torch.tensor([0.0, 1.0, -1.0, 30.0])}, {"causal": False}],
    ids=str,
)
def test_a_query_does_not_notice_how_its_keys_are_divided(
    extra: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    length, kernel = 2 * SPAN + 70, AttentionKernel(4, 2, 72, 0.2, dtype, **extra)
    q, kv = torch.randn(12, length, 4, 72).to(dtype), torch.randn(2, 12, length, 2, 72).to(dtype)
    whole = attend(kernel, q, kv, [(5, 0, length)])
    last = (5, length - 1, length)
    for threads in (1, 2, 7):
        monkeypatch.setattr(jobs.torch, "get_num_threads", lambda threads=threads: threads)
        for _ in range(3):  # memory of parts serves layer after layer
            assert torch.equal(attend(kernel, q, kv, [last]), whole[-1:])
        short = attend(kernel, q, kv, [(3, SPAN - 1, SPAN), last, (1, 4, 5), (2, SPAN, SPAN + 1)])
        assert torch.equal(short[1:2], whole[-1:])
        among = attend(kernel, q, kv, [(i, length - 1, length) for i in range(12)])
        assert torch.equal(among[5:6], whole[-1:])
    options = {"sliding_window": extra.get("window"), "sinks": extra.get("sinks")}
    exact = attention_reference(q[5].float(), *kv[:, 5].float(), scale=0.2, **options)[-1:]
    assert (whole[-1:].float() - exact).abs().max() < TOLERANCE[dtype]


def test_every_query_head_and_key_is_in_one_job() -> None:
    mixed = np.array([1, 1, 300, 70, 5]), np.array([40, 1, 300, 500, 6], dtype=np.int32)
    few = np.array([1, 1, 1]), np.array([1500, SPAN, 1], dtype=np.int32)
    for counts, lengths in (mixed, few):
        firsts = (np.cumsum(counts) - counts).astype(np.int32)
        slots = np.array([3, 0, 4, 1, 9], dtype=np.int32)[: len(counts)]
        for heads, kv_heads in ((8, 2), (1, 1), (28, 4)):
            made = make_jobs(slots, firsts, counts, lengths, heads, kv_heads, 64)
            seen = np.zeros((counts.sum(), kv_heads), dtype=int)
            numbers = []
            for slot, row, position, count, length, head, some, part, parts, first in made.table:
                sequence = int(np.flatnonzero(slots == slot)[0])
                assert length == lengths[sequence]
                assert position == lengths[sequence] - counts[sequence] + row - firsts[sequence]
                assert count * some * heads // kv_heads <= made.block
                if parts > 1:
                    assert parts == -(-length // SPAN)
                    numbers.append(first + part)
                if part == 0:
                    seen[row : row + count, head : head + some] += 1
            assert (seen == 1).all()
            assert sorted(numbers) == list(range(made.parts))
            assert (made.parts > 0) == (len(counts) == 3 and made.work >= GRAIN)


def test_what_one_thread_does_is_not_divided() -> None:
    one, count = np.ones(1, dtype=np.int32), np.ones(1, dtype=np.int64)
    for length, least in ((100, 1), (2 * SPAN, 2)):
        made = make_jobs(one, one * 0, count, one * length, 12, 12, 64)
        assert (made.work >= GRAIN) == (len(made.table) > 1)
        assert len(made.table) >= least
        assert made.parts == (least if least > 1 else 0) * len(set(made.table[:, 5]))


def test_memory_for_workers_grows_with_their_number() -> None:
    one = np.ones(1, dtype=np.int32)
    jobs = make_jobs(one, one * 0, np.ones(1, dtype=np.int64), one * 99, 4, 2, 64)
    few = jobs.scratch(1, 64, 2, wide=False)
    assert jobs.scratch(1, 64, 2, wide=False) is few
    more = jobs.scratch(3, 64, 2, wide=False)
    assert more.address + 64 + 3 * more.per_worker <= more.memory.data_ptr() + len(more.memory)
    assert jobs.scratch(2, 64, 2, wide=False) is more

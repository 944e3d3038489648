"""Paged attention in every form against the layer's reference: batches that mix everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.kernels import attention
from sdk.layers import Attention
from tests.kernels.grid import (
    BATCHES,
    EXTRAS,
    FORMS,
    FORMS_AND_DTYPES,
    FORMS_AND_HALVES,
    HEAD_SIZES,
    HEADS,
    PAGE_SIZES,
    PAST_A_TILE,
    WINDOWS,
    Batch,
    check_attention,
    rope,
)

EVERY_FORM = pytest.mark.parametrize("form", FORMS)
EVERY_FORM_IN_HALVES = pytest.mark.parametrize(("form", "dtype"), FORMS_AND_HALVES)


@pytest.mark.parametrize(("form", "dtype"), FORMS_AND_DTYPES)
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_every_mix_of_prompts_chunks_and_decoding(batch: Batch, form: str, dtype: torch.dtype) -> None:
    check_attention(form, Attention(4, 32, num_kv_heads=2, rotary=rope(32)), batch, dtype, 8)


@EVERY_FORM
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("head_dim", HEAD_SIZES)
def test_every_head_count_and_size(heads: int, kv_heads: int, head_dim: int, form: str) -> None:
    layer = Attention(heads, head_dim, num_kv_heads=kv_heads, rotary=rope(head_dim))
    check_attention(form, layer, BATCHES["a few"], torch.float32, 16)


@EVERY_FORM_IN_HALVES
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_every_size_of_heads_in_the_dtypes_of_serving(head_dim: int, form: str, dtype: torch.dtype) -> None:
    layer = Attention(4, head_dim, num_kv_heads=1, rotary=rope(head_dim))
    check_attention(form, layer, PAST_A_TILE, dtype, 16)


@EVERY_FORM
@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_and_page_size(window: int | None, page_size: int, form: str) -> None:
    layer = Attention(4, 16, num_kv_heads=2, sliding_window=window)
    check_attention(form, layer, BATCHES["a few"], torch.float32, page_size)


@EVERY_FORM_IN_HALVES
@pytest.mark.parametrize(("window", "page_size"), [(5, 3), (8, 64), (100, 8)])
def test_windows_and_pages_in_the_dtypes_of_serving(window: int, page_size: int, form: str, dtype: torch.dtype) -> None:
    layer = Attention(4, 64, num_kv_heads=2, sliding_window=window)
    check_attention(form, layer, PAST_A_TILE, dtype, page_size)


@EVERY_FORM
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_soft_caps_alibi_and_sinks(extra: dict[str, Any], form: str) -> None:
    layer = Attention(4, 16, num_kv_heads=2, **extra)
    check_attention(form, layer, BATCHES["a few"], torch.float32, 8)


@EVERY_FORM_IN_HALVES
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_extras_in_the_dtypes_of_serving(extra: dict[str, Any], form: str, dtype: torch.dtype) -> None:
    layer = Attention(4, 64, num_kv_heads=2, **extra)
    check_attention(form, layer, BATCHES["a few"], dtype, 8)


@pytest.mark.parametrize("most", [1, 300])
def test_scores_are_written_out_for_some_queries_at_a_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_SCORES", most)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    layer = Attention(4, 16, num_kv_heads=2, logit_softcap=1.0, alibi_slopes=slopes, sliding_window=6)
    for batch in BATCHES.values():
        check_attention("torch", layer, batch, torch.float32, 8)


@EVERY_FORM
@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
def test_interleaved_and_partial_rotary(interleaved: bool, form: str) -> None:
    rotary = rope(32, interleaved=interleaved, partial=0.5)
    check_attention(form, Attention(4, 32, num_kv_heads=2, rotary=rotary), BATCHES["a few"], torch.float32, 8)

"""Attention in both directions, padded and packed, in every form, against the layers' references."""

from __future__ import annotations

import pytest
import torch

from sdk.layers import EncoderAttention, PackedEncoderAttention
from tests.kernels.grid import FORMS, HEAD_SIZES, TOLERANCE, device_of, dtypes_of, kernels_of

CASES = [
    pytest.param(form, dtype, id=f"{form}-{str(dtype).removeprefix('torch.')}")
    for form in FORMS
    for dtype in dtypes_of(form)
]
# Rows of each item: none, one, ragged, edges of a tile.
LENGTHS = {
    "none": [],
    "one row": [1],
    "one item": [33],
    "ragged": [5, 0, 64, 1, 65, 17],
    "of one length": [31, 31, 31],
}


@pytest.mark.parametrize(("form", "dtype"), CASES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 33), (3, 7, 70), (0, 4, 4)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_items_of_one_length(shape: tuple[int, int, int], masked: bool, form: str, dtype: torch.dtype) -> None:
    items, n, m = shape
    layer, device = EncoderAttention(3, 16), device_of(form)
    generator = torch.Generator().manual_seed(n + m)
    q, k, v = (torch.randn(items, rows, 3, 16, generator=generator).to(device, dtype) for rows in (n, m, m))
    seen = None
    if masked:
        seen = torch.rand(items, m, generator=generator) < 0.6
        seen[:, m // 2] = True
        k[~seen], v[~seen] = float("nan"), float("nan") if form == "triton" else 0
        k, v, seen = k.nan_to_num(), v if form == "triton" else v.nan_to_num(), seen.to(device)
    kernel = kernels_of(form, dtype).other(layer)
    assert kernel is not None
    ours, expected = kernel(q, k, v, seen), layer.reference(q, k, v.nan_to_num(), seen)
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("form", "dtype"), CASES)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_items_end_to_end(lengths: list[int], form: str, dtype: torch.dtype) -> None:
    layer, device = PackedEncoderAttention(4, 32), device_of(form)
    generator = torch.Generator().manual_seed(len(lengths))
    fused = torch.randn(sum(lengths), 12, 32, generator=generator).to(device, dtype)
    q, k, v = fused.split(4, dim=1)
    kernel = kernels_of(form, dtype).other(layer)
    assert kernel is not None
    ours, expected = kernel(q, k, v, lengths), layer.reference(q, k, v, lengths)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head_dim", HEAD_SIZES)
def test_every_head_size(head_dim: int, form: str) -> None:
    layer, device = PackedEncoderAttention(2, head_dim), device_of(form)
    q, k, v = (torch.randn(40, 2, head_dim, device=device) for _ in "qkv")
    kernel = kernels_of(form, torch.float32).other(layer)
    assert kernel is not None
    torch.testing.assert_close(kernel(q, k, v, [33, 7]), layer.reference(q, k, v, [33, 7]), rtol=0, atol=2e-5)

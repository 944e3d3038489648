"""Packed weights moved to huge pages: the products are the same, and the memory lasts as long as a weight is held."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from core.kernels import weight_memory
from core.kernels.linear import ROWS_HINT, PackedLinear, can_pack
from core.kernels.weight_memory import ALIGNMENT, CHUNK, HUGE, HugePages, Placed, in_huge_pages

pytestmark = pytest.mark.skipif(not can_pack(torch.empty(1, 1)), reason="torch was built without oneDNN")


def placed(packed: Tensor) -> Placed:
    found = in_huge_pages(packed)
    assert found.memory is not None
    assert torch.ops.mkldnn.data_ptr(found.packed) == found.memory.ctypes.data != torch.ops.mkldnn.data_ptr(packed)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 600])
def test_products_are_the_same(dtype: torch.dtype, rows: int) -> None:
    x, weight = torch.randn(rows, 96).to(dtype), torch.randn(200, 96).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
    product, moved = torch.ops.mkldnn._linear_pointwise.default, placed(packed)
    before, after = (product(x, w, None, "none", [], "") for w in (packed, moved.packed))
    assert torch.equal(before, after)


@pytest.mark.parametrize("rows", [1, 70])
def test_products_of_integers_are_the_same(rows: int) -> None:
    weight = torch.randint(-127, 128, (128, 192), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    x, scale, zero = (
        torch.randint(0, 256, (rows, 192), dtype=torch.uint8),
        torch.rand(128),
        torch.zeros(128, dtype=torch.int64),
    )

    def product(w: Tensor) -> Tensor:
        made: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            x, 1.0, 128, w, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return made

    moved = placed(packed)
    assert torch.equal(product(packed), product(moved.packed))


def test_a_weight_stays_where_it_is_if_torch_cannot_be_told_of_another_place(monkeypatch: Any) -> None:
    def refuses(packed: Tensor, address: int) -> Tensor:
        raise AttributeError("undefined symbol")

    monkeypatch.setattr(weight_memory, "_opaque", refuses)
    weight_memory._can_place.cache_clear()
    try:
        x, weight = torch.randn(3, 64), torch.randn(64, 64)
        layer = PackedLinear(weight, None)
        torch.testing.assert_close(layer(x), x @ weight.T)
        assert in_huge_pages(layer.packed).memory is None
    finally:
        weight_memory._can_place.cache_clear()


def test_weights_lie_in_chunks_that_go_with_the_last_of_them() -> None:
    pages = HugePages()
    first, second = pages.take(1000), pages.take(5)
    assert first.ctypes.data % HUGE == 0
    assert second.ctypes.data - first.ctypes.data == -(-1000 // ALIGNMENT) * ALIGNMENT
    large = pages.take(CHUNK + HUGE)  # which the chunk has no room for
    assert (len(large), large.ctypes.data % HUGE) == (CHUNK + HUGE, 0)
    chunk = pages._chunk()
    assert chunk is not None
    gone = weakref.ref(chunk)
    del chunk, large
    gc.collect()
    assert gone() is None
    assert pages.take(64).ctypes.data % HUGE == 0  # of a new one

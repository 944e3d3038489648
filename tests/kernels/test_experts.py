"""Packed experts against their reference: every count of tokens and choices, and what is read."""

from __future__ import annotations

import pytest
import torch

from core.kernels.experts import PackedExperts, pack_experts
from core.kernels.linear import can_pack
from sdk.layers import Experts

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])


def made(dtype: torch.dtype, num_experts: int = 6) -> Experts:
    torch.manual_seed(num_experts)
    layer = Experts(num_experts, 32, 48, "silu")
    layer.gate_up_proj.data = (torch.randn(num_experts, 96, 32) / 6).to(dtype)
    layer.down_proj.data = (torch.randn(num_experts, 32, 48) / 7).to(dtype)
    if not can_pack(layer.down_proj):
        pytest.skip("this build of torch cannot reorder weights for oneDNN")
    return layer


def chosen_for(tokens: int, top_k: int, num_experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, chosen = torch.rand(tokens, num_experts).softmax(-1).topk(top_k, -1)
    return weights, chosen


@DTYPES
@pytest.mark.parametrize("tokens", [0, 1, 2, 9, 70])
@pytest.mark.parametrize("top_k", [1, 2, 6])
def test_packed_experts_are_the_experts(tokens: int, top_k: int, dtype: torch.dtype) -> None:
    layer = made(dtype)
    x, choice = torch.randn(tokens, 32).to(dtype), chosen_for(tokens, top_k, 6)
    ours, expected = PackedExperts(layer)(x, *choice), layer.reference(x, *choice)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=TOLERANCE[dtype])


@DTYPES
def test_all_tokens_may_choose_one_expert(dtype: torch.dtype) -> None:
    layer = made(dtype)
    x, weights, chosen = torch.randn(5, 32).to(dtype), torch.rand(5, 1), torch.full((5, 1), 5)
    ours, expected = PackedExperts(layer)(x, weights, chosen), layer.reference(x, weights, chosen)
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("tokens", [1, 4])
def test_an_expert_that_no_token_chose_is_not_read(tokens: int) -> None:
    layer = made(torch.float32)
    for name in ("gate_up_proj", "down_proj"):
        getattr(layer, name).data[[0, 2, 3, 5]] = float("nan")
    called: list[int] = []
    packed = PackedExperts(layer)
    packed.down = [lambda x, i=i, down=down: called.append(i) or down(x) for i, down in enumerate(packed.down)]
    out = packed(torch.randn(tokens, 32), torch.rand(tokens, 2), torch.tensor([[4, 1]] * tokens))
    assert out.isfinite().all()
    assert called == [1, 4]


def test_a_token_gets_the_same_alone_and_among_others() -> None:
    packed, x, (weights, chosen) = PackedExperts(made(torch.float32)), torch.randn(9, 32), chosen_for(9, 2, 6)
    together = packed(x, weights, chosen)
    alone = torch.cat([packed(x[i : i + 1], weights[i : i + 1], chosen[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


def test_packing_fills_the_layer_and_frees_the_plain_weights() -> None:
    layer, x, choice = made(torch.float32), torch.randn(3, 32), chosen_for(3, 2, 6)
    expected = layer(x, *choice)
    pack_experts(layer)
    assert isinstance(layer.kernel, PackedExperts)
    assert [p.numel() for p in layer.parameters()] == [0, 0]
    torch.testing.assert_close(layer(x, *choice), expected)

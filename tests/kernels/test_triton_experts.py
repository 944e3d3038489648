"""Mixtures of experts in Triton against their reference: every count of tokens, choices and experts."""

from __future__ import annotations

import pytest
import torch

from sdk.layers import Experts
from sdk.layers.base import Kernel
from tests.kernels.grid import TOLERANCE, device_of, dtypes_of, kernels_of

DEVICE = device_of("triton")


def made(num_experts: int, hidden: int, inner: int, dtype: torch.dtype) -> tuple[Experts, Kernel]:
    torch.manual_seed(num_experts)
    layer = Experts(num_experts, hidden, inner, "silu")
    for parameter in layer.parameters():
        parameter.data = (torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5).to(DEVICE, dtype)
    kernel = kernels_of("triton", dtype).other(layer)
    assert kernel is not None
    return layer, kernel


def drawn(tokens: int, top_k: int, num_experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, chosen = torch.rand(tokens, num_experts).softmax(-1).topk(top_k, -1)
    return weights.to(DEVICE), chosen.to(DEVICE)


@pytest.mark.parametrize("dtype", dtypes_of("triton"), ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 2, 9, 70])
@pytest.mark.parametrize(
    ("experts", "top_k", "hidden", "inner"),
    [(6, 1, 32, 48), (6, 2, 100, 72), (6, 6, 32, 16), (1, 1, 32, 48), (33, 2, 16, 16)],
)
def test_experts_of_every_shape(
    experts: int, top_k: int, hidden: int, inner: int, tokens: int, dtype: torch.dtype
) -> None:
    layer, kernel = made(experts, hidden, inner, dtype)
    x, choice = torch.randn(tokens, hidden).to(DEVICE, dtype), drawn(tokens, top_k, experts)
    ours, expected = kernel(x, *choice), layer.reference(x, *choice)
    assert (ours.shape, ours.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0.002, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("tokens", [1, 40])
def test_all_tokens_may_choose_one_expert_and_others_are_not_read(tokens: int) -> None:
    layer, kernel = made(7, 32, 48, torch.float32)
    for parameter in layer.parameters():
        parameter.data[:6] = float("nan")
    x, weights = torch.randn(tokens, 32, device=DEVICE), torch.rand(tokens, 1, device=DEVICE)
    chosen = torch.full((tokens, 1), 6, device=DEVICE)
    torch.testing.assert_close(kernel(x, weights, chosen), layer.reference(x, weights, chosen), rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_reaches_its_own_row_alone() -> None:
    _, kernel = made(6, 32, 48, torch.float32)
    x, choice = torch.randn(30, 32, device=DEVICE), drawn(30, 2, 6)
    x[4, 7] = float("nan")
    assert kernel(x, *choice).isfinite().all(dim=-1).tolist() == [row != 4 for row in range(30)]


def test_a_token_gets_the_same_alone_and_among_others() -> None:
    _, kernel = made(6, 32, 48, torch.float32)
    x, (weights, chosen) = torch.randn(90, 32, device=DEVICE), drawn(90, 2, 6)
    together = kernel(x, weights, chosen)
    alone = torch.cat([kernel(x[i : i + 1], weights[i : i + 1], chosen[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(alone, together[:9], rtol=0, atol=1e-6)

"""Linear layers, norms, activations and embeddings against torch and transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sdk.layers import (
    Activation,
    ActivationAndMul,
    ColumnParallelLinear,
    GeluAndMul,
    LayerNorm,
    MergedColumnParallelLinear,
    ParallelLMHead,
    QKVParallelLinear,
    ReplicatedLinear,
    RMSNorm,
    RowParallelLinear,
    SiluAndMul,
    VocabParallelEmbedding,
)
from sdk.layers.activation import ACTIVATIONS


def filled(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("cls", [ReplicatedLinear, ColumnParallelLinear, RowParallelLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_linear_layer_is_torchs(cls: type, bias: bool) -> None:
    layer = filled(cls(6, 4, bias))
    x = torch.randn(2, 3, 6)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert (layer.bias is not None) is bias


def test_a_merged_layer_returns_its_parts() -> None:
    layer = filled(MergedColumnParallelLinear(6, [4, 3, 5], parts=("a", "b", "c")))
    x = torch.randn(2, 6)
    parts = layer(x)
    assert [p.shape[-1] for p in parts] == [4, 3, 5]
    assert torch.equal(torch.cat(parts, -1), F.linear(x, layer.weight, layer.bias))
    assert layer.part_rows() == {"a": slice(0, 4), "b": slice(4, 7), "c": slice(7, 12)}
    with pytest.raises(ValueError, match="3 output sizes but 2 part names"):
        MergedColumnParallelLinear(6, [4, 3, 5], parts=("a", "b"))


@pytest.mark.parametrize("lead", [(5,), (2, 5)])
def test_query_key_and_value_come_in_heads(lead: tuple[int, ...]) -> None:
    layer = filled(QKVParallelLinear(6, 4, 6, 2))
    x = torch.randn(*lead, 6)
    q, k, v = layer(x)
    assert (q.shape, k.shape, v.shape) == ((*lead, 6, 4), (*lead, 2, 4), (*lead, 2, 4))
    whole = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(torch.cat([t.flatten(-2) for t in (q, k, v)], -1), whole)
    assert [s.stop - s.start for s in layer.part_rows().values()] == [24, 8, 8]


def test_a_kernel_serves_plain_and_merged_layers_alike() -> None:
    for layer in (
        ReplicatedLinear(6, 6),
        QKVParallelLinear(6, 1, 2),
        MergedColumnParallelLinear(6, [4, 2], parts="ab"),
    ):
        filled(layer)
        x = torch.randn(3, 6)
        before = layer(x)
        layer.fill(lambda x, layer=layer: 2 * F.linear(x, layer.weight, layer.bias))
        after = layer(x)
        pairs = [(before, after)] if isinstance(before, torch.Tensor) else zip(before, after)
        assert all(torch.equal(2 * a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_transformers(dtype: torch.dtype) -> None:
    theirs = LlamaRMSNorm(16, 1e-3).to(dtype)
    nn.init.normal_(theirs.weight)
    ours = RMSNorm(16, 1e-3).to(dtype)
    ours.weight.copy_(theirs.weight.detach())
    x = torch.randn(4, 16).to(dtype)
    assert torch.equal(ours(x), theirs(x))


def test_an_rms_norm_with_an_offset_equals_gemmas() -> None:
    theirs = GemmaRMSNorm(16, 1e-3)
    nn.init.normal_(theirs.weight)
    ours = RMSNorm(16, 1e-3, offset=1.0)
    ours.weight.copy_(theirs.weight.detach())
    x = torch.randn(4, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_rms_norm_threads_the_residual_stream() -> None:
    norm = filled(RMSNorm(8))
    x, residual = torch.randn(3, 8), torch.randn(3, 8)
    out, total = norm(x, residual)
    assert torch.equal(total, x + residual)
    assert torch.equal(out, norm(x + residual))


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_torchs(bias: bool) -> None:
    theirs = nn.LayerNorm(8, 1e-3, bias=bias)
    ours = LayerNorm(8, 1e-3, bias)
    filled(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 8)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_those_of_the_same_name_in_transformers(name: str) -> None:
    x, up = torch.linspace(-4, 4, 40), torch.randn(40)
    torch.testing.assert_close(Activation(name)(x), ACT2FN[name](x))
    torch.testing.assert_close(ActivationAndMul(name)(x, up), ACT2FN[name](x) * up)


def test_gated_activations_by_their_own_names() -> None:
    x, up = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(SiluAndMul()(x, up), F.silu(x) * up)
    torch.testing.assert_close(GeluAndMul()(x, up), F.gelu(x) * up)
    torch.testing.assert_close(GeluAndMul("tanh")(x, up), F.gelu(x, approximate="tanh") * up)


def test_an_unknown_activation_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown activation 'swoosh'; known: gelu"):
        Activation("swoosh")


def test_embedding_and_head_share_a_table_when_tied() -> None:
    embedding = filled(VocabParallelEmbedding(10, 4))
    head = ParallelLMHead(10, 4).tie_weights(embedding)
    ids = torch.tensor([3, 3, 9])
    assert torch.equal(embedding(ids), embedding.weight[ids])
    assert torch.equal(head(embedding(ids)), embedding.weight[ids] @ embedding.weight.T)
    assert head.weight is embedding.weight
    assert filled(ParallelLMHead(10, 4, bias=True))(torch.randn(2, 4)).shape == (2, 10)

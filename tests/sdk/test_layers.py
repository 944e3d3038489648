"""Linear layers, norms, activations and embeddings against torch and transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from sdk.layers import (
    MLP,
    Activation,
    ActivationAndMul,
    ColumnParallelLinear,
    Experts,
    GatedMLP,
    GeluAndMul,
    LayerNorm,
    MergedColumnParallelLinear,
    ParallelLMHead,
    PositionEmbedding,
    QKVParallelLinear,
    ReplicatedLinear,
    RMSNorm,
    RowParallelLinear,
    SiluAndMul,
    TopKRouter,
    VocabParallelEmbedding,
)
from sdk.layers.activation import ACTIVATIONS
from sdk.weights import load_weights


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


def test_a_layer_norm_may_have_no_parameters() -> None:
    ours = LayerNorm(8, 1e-3, affine=False)
    x = torch.randn(3, 8)
    assert list(ours.parameters()) == []
    assert torch.equal(ours(x), F.layer_norm(x, (8,), eps=1e-3))


def test_a_norm_begins_the_residual_stream_and_joins_branches_to_it() -> None:
    norm = filled(RMSNorm(8))
    x, branch = torch.randn(3, 8), torch.randn(3, 8)
    out, stream = norm.join(x, None)
    assert stream is x
    assert torch.equal(out, norm(x))
    assert all(torch.equal(a, b) for a, b in zip(norm.join(branch, stream), norm(branch, stream)))


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


def test_an_mlp_equals_clips() -> None:
    config = CLIPVisionConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2, hidden_act="quick_gelu")
    theirs, ours = filled(CLIPMLP(config)), MLP(8, 12, "quick_gelu")
    assert load_weights(ours, theirs.state_dict().items()) == {name for name, _ in ours.named_parameters()}
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    assert {name for name, _ in MLP(8, 12, "gelu", bias=False).named_parameters()} == {"fc1.weight", "fc2.weight"}


@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_mlp_equals_llamas(bias: bool) -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2, hidden_act="gelu", mlp_bias=bias)
    theirs, ours = filled(LlamaMLP(config)), GatedMLP(8, 12, "gelu", bias)
    assert load_weights(ours, theirs.state_dict().items()) == {name for name, _ in ours.named_parameters()}
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_position_takes_the_row_that_is_offset_from_it() -> None:
    layer = filled(PositionEmbedding(6, 4, offset=2))
    assert layer.weight.shape == (8, 4)
    assert torch.equal(layer(torch.tensor([0, 5, 0])), layer.weight[[2, 7, 2]])
    with pytest.raises(IndexError):
        layer(torch.tensor([6]))


def sparse_pair(num_experts: int, top_k: int, dtype: torch.dtype) -> tuple[nn.Module, TopKRouter, Experts]:
    """A sparse block of transformers, and our router and experts with its weights."""
    config = MixtralConfig(
        hidden_size=16, intermediate_size=24, num_local_experts=num_experts, num_experts_per_tok=top_k
    )
    theirs = filled(MixtralSparseMoeBlock(config)).to(dtype)
    router, experts = TopKRouter(16, num_experts, top_k).to(dtype), Experts(num_experts, 16, 24, "silu").to(dtype)
    load_weights(router, [("weight", theirs.gate.weight)])
    load_weights(experts, theirs.experts.state_dict().items())
    return theirs, router, experts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (4, 1), (8, 2), (4, 4)])
@torch.inference_mode()
def test_router_and_experts_equal_mixtrals(num_experts: int, top_k: int, dtype: torch.dtype) -> None:
    theirs, router, experts = sparse_pair(num_experts, top_k, dtype)
    x = torch.randn(7, 16).to(dtype)
    _, weights, chosen = theirs.gate(x)
    ours = router(x)
    assert torch.equal(ours[1], chosen)
    torch.testing.assert_close(ours[0], weights)
    torch.testing.assert_close(
        experts(x, *ours), theirs(x[None])[0], rtol=2e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-4
    )


def test_a_router_may_leave_the_chosen_weights_as_they_are() -> None:
    router = filled(TopKRouter(8, 6, 2, normalize=False))
    x = torch.randn(5, 8)
    weights, chosen = router(x)
    everything = F.linear(x, router.weight).softmax(-1)
    assert torch.equal(weights, everything.gather(1, chosen))
    assert bool((weights.sum(-1) < 1).all())


def test_an_expert_that_no_token_chose_is_not_read() -> None:
    experts = filled(Experts(4, 8, 6, "silu"))
    for name in ("gate_up_proj", "down_proj"):
        getattr(experts, name).data[[0, 2]] = float("nan")
    x, weights, chosen = torch.randn(3, 8), torch.rand(3, 2), torch.tensor([[1, 3], [3, 1], [1, 3]])
    assert experts(x, weights, chosen).isfinite().all()


def test_embedding_and_head_share_a_table_when_tied() -> None:
    embedding = filled(VocabParallelEmbedding(10, 4))
    head = ParallelLMHead(10, 4).tie_weights(embedding)
    ids = torch.tensor([3, 3, 9])
    assert torch.equal(embedding(ids), embedding.weight[ids])
    assert torch.equal(head(embedding(ids)), embedding.weight[ids] @ embedding.weight.T)
    assert head.weight is embedding.weight
    assert filled(ParallelLMHead(10, 4, bias=True))(torch.randn(2, 4)).shape == (2, 10)

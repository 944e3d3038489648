"""From a checkpoint's names to parameters: fused, tied, renamed, dropped, and each filled exactly once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sdk import WeightMap
from sdk.errors import MissingWeightsError, UnexpectedWeightsError, WeightsError, WeightsShapeError
from sdk.layers import (
    Experts,
    MergedColumnParallelLinear,
    ParallelLMHead,
    QKVParallelLinear,
    ReplicatedLinear,
    VocabParallelEmbedding,
)
from sdk.weights import (
    load_weights,
    load_weights_report,
    missing_parameters,
    parameter_slots,
    raise_for_missing,
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj = QKVParallelLinear(4, 2, 2, 1)
        self.gate_up_proj = MergedColumnParallelLinear(4, [3, 5], False, parts=("gate_proj", "up_proj"))
        self.out = ReplicatedLinear(4, 4, False)


class Net(nn.Module):
    weight_map = WeightMap(rename=[(r"^transformer\.", ""), (r"\.h\.", ".blocks.")], drop=[r"inv_freq$"])

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = VocabParallelEmbedding(6, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = ParallelLMHead(6, 4)
        if tied:
            self.head.tie_weights(self.embed)
        self.register_buffer("scale", torch.zeros(2))
        self.register_buffer("computed", torch.zeros(2), persistent=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


def checkpoint(tied: bool = True) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (6, 4), "scale": (2,)}
    if not tied:
        shapes["head.weight"] = (6, 4)
    for i in range(2):
        for name, rows in (("q_proj", 4), ("k_proj", 2), ("v_proj", 2)):
            shapes |= {f"blocks.{i}.{name}.weight": (rows, 4), f"blocks.{i}.{name}.bias": (rows,)}
        shapes |= {f"blocks.{i}.gate_proj.weight": (3, 4), f"blocks.{i}.up_proj.weight": (5, 4)}
        shapes[f"blocks.{i}.out.weight"] = (4, 4)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_parts_fill_their_rows_in_any_order() -> None:
    net, weights = Net(), checkpoint()
    filled = load_weights(net, reversed(weights.items()))
    block = net.blocks[1]
    parts = [weights[f"blocks.1.{p}.weight"] for p in ("q_proj", "k_proj", "v_proj")]
    assert torch.equal(block.qkv_proj.weight, torch.cat(parts))
    parts = [weights[f"blocks.1.{p}.bias"] for p in ("q_proj", "k_proj", "v_proj")]
    assert torch.equal(block.qkv_proj.bias, torch.cat(parts))
    parts = [weights[f"blocks.1.{p}.weight"] for p in ("gate_proj", "up_proj")]
    assert torch.equal(block.gate_up_proj.weight, torch.cat(parts))
    assert torch.equal(net.scale, weights["scale"])
    assert missing_parameters(net, filled) == []


def test_a_checkpoint_that_stores_a_layer_fused_loads_as_well() -> None:
    net, weights = Net(), checkpoint()
    for kind in ("weight", "bias"):
        fused = torch.cat([weights.pop(f"blocks.0.{p}_proj.{kind}") for p in "qkv"])
        weights[f"blocks.0.qkv_proj.{kind}"] = fused
    assert missing_parameters(net, load_weights(net, weights.items())) == []


def test_a_tied_head_is_filled_by_either_name_and_both_if_equal() -> None:
    for names in (("embed.weight",), ("head.weight",), ("head.weight", "embed.weight")):
        net, weights = Net(), checkpoint()
        table = weights.pop("embed.weight")
        filled = load_weights(net, [*weights.items(), *((name, table) for name in names)])
        assert torch.equal(net.head.weight, table)
        assert missing_parameters(net, filled) == []


def test_a_tied_head_that_differs_is_an_error() -> None:
    weights = {**checkpoint(), "head.weight": torch.randn(6, 4)}
    with pytest.raises(WeightsError, match=r"'head\.weight' differs from 'embed\.weight'.*tie_word_embeddings"):
        load_weights(Net(), weights.items())


def test_tensors_take_the_parameters_type() -> None:
    net, weights = Net().bfloat16(), checkpoint()
    load_weights(net, weights.items())
    assert torch.equal(net.embed.weight, weights["embed.weight"].bfloat16())


def test_names_are_mapped_one_rule_after_the_other_and_some_dropped() -> None:
    weights = {f"transformer.{n.replace('blocks', 'x.h', 1)}": t for n, t in checkpoint().items()}
    rename = (*Net.weight_map.rename, (r"^x\.blocks", "blocks"))
    weights["transformer.rotary.inv_freq"] = torch.ones(2)
    cls = type("Mapped", (Net,), {"weight_map": WeightMap(rename, Net.weight_map.drop)})
    net = cls()
    report = load_weights_report(net, weights.items())
    assert report.dropped == ["transformer.rotary.inv_freq"]
    assert not report.unexpected
    assert missing_parameters(net, report.filled) == []


def test_a_part_with_a_map_of_its_own_sees_names_without_its_path() -> None:
    class Outer(nn.Module):
        weight_map = WeightMap(rename=[(r"^model\.", "")])

        def __init__(self) -> None:
            super().__init__()
            self.inner = Net()

    outer = Outer()
    weights = {f"model.inner.transformer.{name}": tensor for name, tensor in checkpoint().items()}
    assert missing_parameters(outer, load_weights(outer, weights.items())) == []


def test_a_tensor_that_fits_nothing_is_named_with_its_nearest() -> None:
    weights = {**checkpoint(), "blocks.0.outt.weight": torch.ones(4, 4), "other": torch.ones(1)}
    with pytest.raises(UnexpectedWeightsError, match=r"2 tensors.*outt\.weight \(nearest: blocks\.0\.out\.weight\)"):
        load_weights(Net(), weights.items())


def test_a_parameter_left_empty_is_named_with_its_nearest() -> None:
    net, weights = Net(), checkpoint()
    weights["blocks.0.ouch.weight"] = weights.pop("blocks.0.out.weight")
    del weights["blocks.1.k_proj.weight"], weights["scale"]
    report = load_weights_report(net, weights.items())
    with pytest.raises(MissingWeightsError) as caught:
        raise_for_missing(net, report.filled, weights)
    message = str(caught.value)
    assert message.startswith("the checkpoint lacks 3 tensors of Net")
    assert "blocks.0.out.weight (nearest: blocks.0.ouch.weight)" in message
    assert "blocks.1.k_proj.weight;" in message
    assert "qkv_proj" not in message
    assert "scale" in message


@pytest.mark.parametrize("name", ["embed.weight", "blocks.0.k_proj.weight", "blocks.0.up_proj.weight"])
def test_a_wrong_shape_is_named_with_both_shapes(name: str) -> None:
    weights = {**checkpoint(), name: torch.ones(7, 7)}
    with pytest.raises(WeightsShapeError, match=rf"'{name}' has shape \(7, 7\)"):
        load_weights(Net(), weights.items())


@pytest.mark.parametrize("extra", ["embed.weight", "blocks.0.q_proj.bias", "transformer.embed.weight"])
def test_a_parameter_is_filled_once(extra: str) -> None:
    weights = checkpoint()
    tensor = weights[extra.removeprefix("transformer.")]
    with pytest.raises(WeightsError, match="filled already"):
        load_weights(Net(), [*weights.items(), (extra, tensor)])


def test_a_layer_is_filled_whole_or_in_parts() -> None:
    weights = {**checkpoint(), "blocks.0.gate_up_proj.weight": torch.ones(8, 4)}
    with pytest.raises(WeightsError, match="both whole and in parts"):
        load_weights(Net(), weights.items())


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts(3, 4, 5, "silu", parts=("w1", "w3", "w2"))


def one_by_one() -> dict[str, Tensor]:
    shapes = {"w1": (5, 4), "w3": (5, 4), "w2": (4, 5)}
    return {f"experts.{i}.{part}.weight": torch.randn(shape) for i in range(3) for part, shape in shapes.items()}


def test_experts_that_come_one_by_one_fill_their_place_in_the_stack() -> None:
    net, weights = Sparse(), one_by_one()
    assert missing_parameters(net, load_weights(net, reversed(weights.items()))) == []
    for i in range(3):
        gate, up, down = (weights[f"experts.{i}.{part}.weight"] for part in ("w1", "w3", "w2"))
        assert torch.equal(net.experts.gate_up_proj[i], torch.cat((gate, up)))
        assert torch.equal(net.experts.down_proj[i], down)


def test_experts_load_stacked_as_well_but_not_both_ways_at_once() -> None:
    net, stacked = Sparse(), {"experts.gate_up_proj": torch.randn(3, 10, 4), "experts.down_proj": torch.randn(3, 4, 5)}
    assert missing_parameters(net, load_weights(net, stacked.items())) == []
    assert torch.equal(net.experts.down_proj, stacked["experts.down_proj"])
    with pytest.raises(WeightsError, match="both whole and in parts"):
        load_weights(Sparse(), {**stacked, "experts.0.w2.weight": torch.ones(4, 5)}.items())


def test_an_expert_that_lacks_a_part_is_named() -> None:
    net, weights = Sparse(), one_by_one()
    del weights["experts.2.w3.weight"]
    report = load_weights_report(net, weights.items())
    assert report.filled == {"experts.down_proj"}
    with pytest.raises(MissingWeightsError, match=r"lacks 1 tensors of Sparse: experts\.2\.w3\.weight"):
        raise_for_missing(net, report.filled, weights)


def test_every_name_a_tensor_may_bear_is_a_slot() -> None:
    slots = parameter_slots(Net())
    assert slots["head.weight"].parameter == slots["embed.weight"].parameter == "embed.weight"
    assert slots["blocks.0.v_proj.bias"] == ("blocks.0.qkv_proj.bias", slice(6, 8))
    assert slots["blocks.0.qkv_proj.bias"] == ("blocks.0.qkv_proj.bias", None)
    assert "scale" in slots
    assert "computed" not in slots


def test_a_part_without_a_bias_has_one_of_zeros() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv_proj = QKVParallelLinear(4, 2, 2, 1, without_bias=("k_proj",))
            self.kv = MergedColumnParallelLinear(4, [2, 2], parts=("k", "v"), without_bias=("k",))
            for parameter in self.parameters():
                nn.init.constant_(parameter, torch.nan)

    def tensors() -> dict[str, Tensor]:
        made = {f"{p}_proj.weight": torch.ones(n, 4) for p, n in (("q", 4), ("k", 2), ("v", 2))}
        made |= {f"{p}.weight": torch.ones(2, 4) for p in "kv"}
        return made | {"q_proj.bias": torch.ones(4), "v_proj.bias": torch.ones(2), "v.bias": torch.ones(2)}

    module = Halves()
    filled = load_weights(module, tensors().items())
    assert missing_parameters(module, filled) == []
    assert module.qkv_proj.bias is not None
    assert module.qkv_proj.bias.tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    assert module.kv.bias is not None
    assert module.kv.bias.tolist() == [0, 0, 1, 1]
    with pytest.raises(UnexpectedWeightsError, match=r"k_proj\.bias"):
        load_weights(Halves(), {**tensors(), "k_proj.bias": torch.zeros(2)}.items())
    without = {name: tensor for name, tensor in tensors().items() if name != "q_proj.bias"}
    incomplete = Halves()
    with pytest.raises(MissingWeightsError, match=r"q_proj\.bias"):
        raise_for_missing(incomplete, load_weights(incomplete, without.items()), without)
    with pytest.raises(ValueError, match="without_bias names o_proj"):
        QKVParallelLinear(4, 2, 2, 1, without_bias=("o_proj",))

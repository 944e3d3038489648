"""Checkpoints that bring their own integers: read by layer name, refused where they ask for more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import LLM, explain
from core.errors import InvalidConfigError, MissingWeightsError
from core.quantization.compressed_tensors import CompressedTensorsConfig
from sdk.testing.reference import assert_close

from .conftest import A8, OPTIONS, W8, error, hf_logits, logits, oracle, quantization_config, write_quantized

Chosen = Callable[[str], bool]


def layers(name: str) -> bool:
    return ".layers." in name and name.endswith("_proj")


def layers_but_the_first_and_down(name: str) -> bool:
    return layers(name) and ".layers.0." not in name and not name.endswith("down_proj")


SOME = ["lm_head", "re:.*\\.layers\\.0\\..*", "re:.*down_proj$"]


@pytest.mark.parametrize(("chosen", "ignore"), [(layers, ["lm_head"]), (layers_but_the_first_and_down, SOME)])
def test_weights_alone(llama_folder: Path, tmp_path: Path, chosen: Chosen, ignore: list[str]) -> None:
    folder = write_quantized(llama_folder, tmp_path, chosen, quantization_config(inputs=False, ignore=ignore))
    with LLM(str(folder), **OPTIONS) as llm:
        assert llm.plan.quantization is not None
        assert llm.plan.quantization.scheme == "compressed-tensors"
        assert_close(logits(llm), hf_logits(oracle(llama_folder, chosen)))


@pytest.mark.parametrize(("chosen", "ignore"), [(layers, ["lm_head"]), (layers_but_the_first_and_down, SOME)])
def test_weights_and_inputs(llama_folder: Path, tmp_path: Path, chosen: Chosen, ignore: list[str]) -> None:
    folder = write_quantized(llama_folder, tmp_path, chosen, quantization_config(inputs=True, ignore=ignore))
    with LLM(str(folder), **OPTIONS) as llm:
        assert error(logits(llm), hf_logits(oracle(llama_folder, chosen, inputs=True))) < 2e-3


def test_groups_by_name_and_by_expression(llama_folder: Path, tmp_path: Path) -> None:
    """Attention with inputs in 8 bits, the MLPs with weights alone; a name says more than a kind."""
    config = quantization_config(inputs=False)
    config["config_groups"]["group_1"] = {"targets": ["re:.*self_attn.*"], "weights": W8, "input_activations": A8}
    folder = write_quantized(llama_folder, tmp_path, layers, config)
    with LLM(str(folder), **OPTIONS) as llm:
        model: Any = llm.engine.model
        assert model.model.layers[1].self_attn.qkv_proj.quant_method.quantize_inputs
        assert not model.model.layers[1].mlp.down_proj.quant_method.quantize_inputs


def test_names_are_those_of_the_checkpoint(llava_folder: Path, tmp_path: Path) -> None:
    """The model's own names are others: an ignore list would miss its layers, and integers would be read as weights."""
    names = set(json_names(llava_folder))
    tower = {n for n in names if "vision_tower" in n or "projector" in n}

    def chosen(name: str) -> bool:
        return layers(name) and name not in tower

    ignore = ["re:.*lm_head", *sorted(tower)]
    folder = write_quantized(llava_folder, tmp_path, chosen, quantization_config(inputs=False, ignore=ignore))
    with LLM(str(folder), **OPTIONS) as llm:
        assert llm.plan.quantization is not None
        assert any("vision_tower" in left for left in llm.plan.quantization.left)
        assert_close(logits(llm), hf_logits(oracle(llava_folder, lambda n: layers(n) and "vision" not in n)))


def json_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as opened:
        return [name.rpartition(".")[0] for name in opened.keys()]  # noqa: SIM118


def test_parts_of_one_product_must_agree(llama_folder: Path, tmp_path: Path) -> None:
    config = quantization_config(inputs=True, ignore=["lm_head", "re:.*v_proj"])
    folder = write_quantized(llama_folder, tmp_path, lambda n: layers(n) and "v_proj" not in n, config)
    with pytest.raises(InvalidConfigError, match=r"_proj' and '.*v_proj' in different ways"):
        LLM(str(folder), **OPTIONS)


def test_experts_are_refused_and_may_be_ignored(mixtral_folder: Path, tmp_path: Path) -> None:
    def attention(name: str) -> bool:
        return "self_attn" in name

    folder = write_quantized(mixtral_folder, tmp_path, attention, quantization_config(inputs=False))
    with pytest.raises(InvalidConfigError, match="such layers cannot be quantized yet"):
        LLM(str(folder), **OPTIONS)
    config = quantization_config(inputs=False, ignore=["lm_head", "re:.*(block_sparse_moe|mlp).*"])
    folder = write_quantized(mixtral_folder, tmp_path, attention, config)
    with LLM(str(folder), **OPTIONS) as llm:
        assert_close(logits(llm), hf_logits(oracle(mixtral_folder, attention)))


def test_a_scale_that_is_missing_is_named(llama_folder: Path, tmp_path: Path) -> None:
    config = quantization_config(inputs=False)
    folder = write_quantized(llama_folder, tmp_path, lambda n: layers(n) and "layers.1.mlp.down" not in n, config)
    with pytest.raises(MissingWeightsError, match=r"layers\.1\.mlp\.down_proj\.weight_scale"):
        LLM(str(folder), **OPTIONS)


def test_asking_for_another_scheme_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    folder = write_quantized(llama_folder, tmp_path, layers, quantization_config(inputs=False))
    with pytest.raises(InvalidConfigError, match="is quantized already, with 'compressed-tensors'"):
        LLM(str(folder), quantization="int8", **OPTIONS)
    told = explain(str(folder), quantization="compressed-tensors", **OPTIONS)
    assert told.refused is None


def test_a_method_that_nobody_reads_is_an_answer(llama_folder: Path, tmp_path: Path) -> None:
    folder = write_quantized(llama_folder, tmp_path, layers, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(
        InvalidConfigError, match="no installed plugin brings the quantization scheme 'gptq'; there are: "
    ):
        LLM(str(folder), **OPTIONS)


def test_a_bare_config_is_enough_for_explain(llama_folder: Path, tmp_path: Path) -> None:
    whole = write_quantized(llama_folder, tmp_path / "whole", layers, quantization_config(inputs=True, ignore=SOME))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((whole / "config.json").read_bytes())
    plans = [explain(str(folder), **OPTIONS).plan for folder in (whole, bare)]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[0].quantization == plans[1].quantization
    assert plans[0].memory.weights == plans[1].memory.weights


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "pack-quantized"}, "format is 'pack-quantized'"),
        ({"quantization_status": "frozen"}, "not stored in few bits"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is not supported"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ({"config_groups": {}}, "has no config_groups"),
        ({"config_groups": {"g": {"targets": ["Linear"]}}}, "quantizes no weights"),
        ({"config_groups": {"g": {"weights": W8 | {"num_bits": 4}}}}, "weights are int4"),
        ({"config_groups": {"g": {"weights": W8 | {"type": "float"}}}}, "weights are float8"),
        ({"config_groups": {"g": {"weights": W8 | {"strategy": "group"}}}}, "a scale for each group"),
        ({"config_groups": {"g": {"weights": W8 | {"symmetric": False}}}}, "asymmetric"),
        (
            {"config_groups": {"g": {"weights": W8, "input_activations": A8 | {"dynamic": False}}}},
            "int8, symmetric, static",
        ),
        ({"config_groups": {"g": {"weights": W8, "output_activations": A8}}}, "output_activations are"),
        ({"config_groups": {"g": {"weights": 8}}}, "config_groups.g.weights"),
        ({"ignore": "lm_head"}, "ignore"),
    ],
)
def test_what_is_not_read_is_refused_and_says_what_is(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidConfigError, match=re.escape(match)) as caught:
        CompressedTensorsConfig.from_config(quantization_config(inputs=True) | changes)
    assert caught.value.param == "quantization_config"


@pytest.mark.parametrize("values", [[8], "int8", {"bits": 8}, {"quant_method": 8}])
def test_a_config_that_makes_no_sense(llama_folder: Path, tmp_path: Path, values: Any) -> None:
    config = json.loads((llama_folder / "config.json").read_text()) | {"quantization_config": values}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = explain(str(tmp_path), **OPTIONS)
    assert told.refused_code == "invalid_config"

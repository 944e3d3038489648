"""`quantization="int8"` in the engine: what it computes, what it leaves, what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import LLM, SamplingParams, explain
from core.errors import InvalidConfigError
from core.quantization import finish
from sdk.layers.linear import Linear
from sdk.testing.reference import assert_close, load_hf

from .conftest import IDS, OPTIONS, error, hf_logits, logits, oracle

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


def everything(name: str) -> bool:
    return True


def but_the_head(name: str) -> bool:
    return name != "lm_head"


def test_weights_alone_are_those_of_transformers_rounded(llama_folder: Path) -> None:
    with LLM(str(llama_folder), quantization="int8_weight_only", **OPTIONS) as llm:
        assert_close(logits(llm), hf_logits(oracle(llama_folder, everything)))
    options = {"quant_method": "int8_weight_only", "lm_head": False}
    with LLM(str(llama_folder), quantization=options, **OPTIONS) as llm:
        assert_close(logits(llm), hf_logits(oracle(llama_folder, but_the_head)))


def test_weights_and_inputs_are_those_of_transformers_rounded(llama_folder: Path) -> None:
    with LLM(str(llama_folder), quantization="int8", **OPTIONS) as llm:
        ours = logits(llm)
    exact, rounded = hf_logits(load_hf(llama_folder)), hf_logits(oracle(llama_folder, everything, inputs=True))
    assert error(ours, rounded) < 2e-3
    assert error(ours, exact) < 1.02 * error(rounded, exact)


def test_a_request_does_not_depend_on_its_company(llama_folder: Path) -> None:
    prompts = [{"prompt_token_ids": IDS[: 5 + 7 * i]} for i in range(6)]
    with LLM(str(llama_folder), quantization="int8", **OPTIONS) as llm:
        together = [o.outputs[0].token_ids for o in llm.generate(prompts, GREEDY)]
        alone = [llm.generate(p, GREEDY)[0].outputs[0].token_ids for p in prompts]
    assert together == alone


def test_routers_experts_tables_and_tied_heads_stay_and_the_head_where_asked_for(
    llama_folder: Path, tied_folder: Path, mixtral_folder: Path
) -> None:
    told = {
        f: explain(str(f), quantization="int8", **OPTIONS).plan for f in (llama_folder, tied_folder, mixtral_folder)
    }
    plans = {f: plan.quantization for f, plan in told.items() if plan is not None}
    assert plans[llama_folder] is not None
    assert (plans[llama_folder].layers, plans[llama_folder].left) == (13, ("model.embed_tokens",))
    assert plans[tied_folder] is not None
    assert set(plans[tied_folder].left) == {"model.embed_tokens", "lm_head"}
    assert plans[mixtral_folder] is not None
    assert any("experts" in left for left in plans[mixtral_folder].left)
    assert any("gate" in left for left in plans[mixtral_folder].left)
    options = {"quant_method": "int8", "lm_head": False, "ignore": ["re:.*down_proj"]}
    whole = explain(str(llama_folder), quantization=options, **OPTIONS).plan
    assert whole is not None
    assert whole.quantization is not None
    assert whole.quantization.left == ("model.embed_tokens", "model.layers.*.mlp.down_proj (3)", "lm_head")
    tied = explain(str(tied_folder), quantization={"quant_method": "int8", "lm_head": True}, **OPTIONS).plan
    assert tied is not None
    assert tied.quantization == plans[tied_folder]  # a table that is looked up as well


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_explain_knows_the_bytes_that_the_engine_then_has(
    llama_folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KERNELS", "torch")  # where weights stay parameters
    options = OPTIONS | {"dtype": dtype, "quantization": "int8"}
    told, plain = (
        explain(str(llama_folder), **options).plan,
        explain(str(llama_folder), **OPTIONS | {"dtype": dtype}).plan,
    )
    assert told is not None
    assert plain is not None
    with LLM(str(llama_folder), **options) as llm:
        assert llm.plan.as_json() | {"memory": None} == told.as_json() | {"memory": None}
        layers = [m for m in llm.engine.model.modules() if isinstance(m, Linear) and m.quant_method is not None]
        held = sum(t.numel() * t.element_size() for m in layers for t in m.parameters())
    assert told.quantization is not None
    assert told.quantization.bytes == held
    assert plain.quantization is None
    assert told.memory.weights < plain.memory.weights
    assert "quantized" in dict(told.lines())


def test_each_layer_is_made_small_as_soon_as_it_is_filled(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model loads, at most one layer stands in full precision that is to be quantized."""
    full: list[int] = []
    real = finish.Finisher._finish

    def watched(self: finish.Finisher, path: str) -> None:
        real(self, path)
        layer = self.model.get_submodule(path)
        full.append(
            sum(t.numel() for t in layer.parameters() if t.element_size() > 1 and t.ndim == 2 and t.shape[1] > 1)
        )

    monkeypatch.setattr(finish.Finisher, "_finish", watched)
    with LLM(str(llama_folder), quantization="int8", **OPTIONS):
        pass
    assert full == [0] * 13


def test_pictures_too(llava_folder: Path) -> None:
    """A tower's layers and the projector's are quantized as any other."""
    plan = explain(str(llava_folder), quantization="int8", **OPTIONS).plan
    assert plan is not None
    assert plan.quantization is not None
    assert all("layers" not in left for left in plan.quantization.left)
    ignore = {"quant_method": "int8", "ignore": ["re:.*vision_tower.*", "re:.*multi_modal_projector.*"]}
    less = explain(str(llava_folder), quantization=ignore, **OPTIONS).plan
    assert less is not None
    assert less.quantization is not None
    assert less.quantization.layers < plan.quantization.layers
    assert any("vision_tower" in left for left in less.quantization.left)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("int9", "did you mean 'int8'"),
        ("", "is a name"),
        ({}, "is a name"),
        ({"lm_head": True}, "is a name"),
        ({"quant_method": "int8", "lm_heads": True}, "it takes ignore, lm_head"),
        ({"quant_method": "int8", "ignore": "lm_head"}, "ignore"),
    ],
)
def test_what_cannot_be_is_refused_by_name(llama_folder: Path, given: object, match: str) -> None:
    with pytest.raises(InvalidConfigError, match=match) as caught:
        LLM(str(llama_folder), quantization=given, **OPTIONS)
    assert caught.value.param == "quantization"
    told = explain(str(llama_folder), quantization=given, **OPTIONS)
    assert told.refused is not None

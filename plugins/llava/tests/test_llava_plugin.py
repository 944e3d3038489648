"""What the LLaVA plugin says of itself, and the checkpoint that ships with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_plugin_llava import demo
from transformers import AutoConfig, AutoProcessor

from sdk import Architecture, ConfigView, ModelContext
from sdk.errors import InvalidConfigError, PluginMissingError
from sdk.testing.reference import (
    assert_close,
    load_hf,
    load_processor,
    load_reference,
    load_target,
    reference_logits,
    resolver_for,
)
from sdk.testing.runtime import find_runtime


def test_every_part_that_the_record_names_is_there(records: list[Architecture]) -> None:
    record = records[0]
    named = (record.model, record.processor, record.info, record.dummy_inputs, record.tiny, record.demo)
    assert all(callable(load_target(target)) for target in named)


@pytest.mark.parametrize("architecture", ["LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration"])
@pytest.mark.parametrize(
    ("text", "attention"),
    [
        ({"model_type": "llama"}, ("full",)),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 64}, ("sliding",)),
        ({"model_type": "mistral", "sliding_window": None}, ("full",)),
        ({}, ("full",)),  # HF's own default
        (None, ("full",)),
    ],
    ids=str,
)
def test_capabilities_are_those_of_the_language_model(
    architecture: str, text: dict[str, object] | None, attention: tuple[str, ...]
) -> None:
    raw = {"vision_config": {"model_type": "clip_vision_model"}} | ({} if text is None else {"text_config": text})
    told = find_runtime().resolve(architecture).capabilities(ConfigView(raw))
    assert told.attention == attention
    assert told.modalities == ("image",)
    assert told.tasks == ("generate",)
    assert told.media_embeds


def test_a_language_model_that_no_plugin_runs_is_named_before_anything_is_built() -> None:
    view = ConfigView({"text_config": {"model_type": "unheard_of"}})
    with pytest.raises(PluginMissingError, match="unheard_of"):
        find_runtime().resolve("LlavaForConditionalGeneration").capabilities(view)


def test_over_pixtral_pictures_cannot_come_as_embeddings() -> None:
    view = ConfigView({"text_config": {"model_type": "mistral"}, "vision_config": {"model_type": "pixtral"}})
    assert not find_runtime().resolve("LlavaForConditionalGeneration").capabilities(view).media_embeds


def test_capabilities_need_the_plugins_at_hand(records: list[Architecture]) -> None:
    with pytest.raises(InvalidConfigError, match="no plugins at hand to tell the capabilities of text_config"):
        load_target(records[0].capabilities)(ConfigView({}))


def test_the_plugin_module_loads_no_torch() -> None:
    code = (
        "import sys, engine_plugin_llava.plugin as p; p.engine_architectures()\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_built_on_the_meta_device_has_real_buffers(folder: Path, records: list[Architecture]) -> None:
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = load_target(records[0].model)(ctx=ModelContext(hf_config=config, resolver=resolver_for(records)))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [buffer.is_meta for buffer in model.buffers()] == [False]


def test_parameters_take_the_type_that_is_asked_for_and_frequencies_stay_exact(
    folder: Path, records: list[Architecture]
) -> None:
    model = load_reference(folder, records, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    exact = reference_logits(load_reference(folder, records), [1, 50, 60])
    assert_close(reference_logits(model, [1, 50, 60]), exact, 0.05)


def test_an_installation_without_the_demo_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo.py"))
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: install engine-plugin-llava from a wheel"):
        demo.path()


@pytest.mark.skipif(
    not (Path(demo.__file__).parent / "demo" / "config.json").is_file(), reason="the demo has not been trained here"
)
def test_the_demo_checkpoint_equals_hf(records: list[Architecture], pictures: list) -> None:
    folder = demo.path()
    text = "USER: <image>\nWhat is in the picture? ASSISTANT:"
    inputs = AutoProcessor.from_pretrained(folder, backend="pil")(text=text, images=pictures[:1], return_tensors="pt")
    with torch.inference_mode():
        expected = load_hf(folder)(**inputs).logits[0]
    prompt = load_processor(folder, records).apply(text, {"image": pictures[:1]})
    assert prompt.prompt_token_ids == inputs["input_ids"][0].tolist()
    assert_close(reference_logits(load_reference(folder, records), prompt), expected)

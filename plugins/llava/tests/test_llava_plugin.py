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
from sdk.testing.reference import (
    assert_close,
    load_hf,
    load_processor,
    load_reference,
    load_target,
    reference_logits,
    resolver_for,
)


def test_every_part_that_the_record_names_is_there(records: list[Architecture]) -> None:
    record = records[0]
    named = (record.model, record.processor, record.info, record.dummy_inputs, record.tiny, record.demo)
    assert all(callable(load_target(target)) for target in named)
    assert load_target(record.capabilities)(ConfigView({})).modalities == ("image",)


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

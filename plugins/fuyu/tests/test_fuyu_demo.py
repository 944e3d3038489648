"""The checkpoint that ships with the plugin: it is there, and what it says is what it says in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_fuyu import demo
from PIL import Image

from sdk import Architecture
from sdk.testing.reference import assert_close, load_hf, load_processor, load_reference, load_target, reference_logits


def test_the_record_of_fuyu_leads_to_it(records: list[Architecture]) -> None:
    fuyu, persimmon = records
    assert (load_target(str(fuyu.demo))(), persimmon.demo) == (demo.path(), None)


def test_it_is_small_enough_for_a_wheel() -> None:
    assert sum(file.stat().st_size for file in demo.path().iterdir()) < 8_000_000


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo.py"))
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: install engine-plugin-fuyu from a wheel"):
        demo.path()


@pytest.mark.parametrize("size", [(384, 384), (112, 112), (305, 305), (150, 100), (20, 90)])
def test_ids_and_logits_equal_hf(records: list[Architecture], size: tuple[int, int]) -> None:
    folder, text = demo.path(), "What is in the picture?\n"
    picture = Image.open(folder / "example.png").resize(size)
    processor = load_processor(folder, records)
    inputs = processor.info.get_hf_processor()(text=text, images=[picture], return_tensors="pt")
    prompt = processor.apply(text, {"image": [picture]})
    assert prompt.prompt_token_ids == inputs["input_ids"][0].tolist()
    with torch.inference_mode():
        expected = load_hf(folder)(**inputs).logits[0]
    assert_close(reference_logits(load_reference(folder, records), prompt), expected)

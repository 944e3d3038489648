"""Checkpoints, pictures and transformers' processors that the tests of LLaVA share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import engine_plugin_llama.plugin
import engine_plugin_llava.plugin
import engine_plugin_towers.plugin
import numpy as np
import pytest
import torch
import transformers
from engine_plugin_llava import tiny
from PIL import Image
from transformers import AutoProcessor
from transformers.models.pixtral import image_processing_pil_pixtral

from sdk import Architecture
from sdk.testing.reference import assert_close, load_hf, load_processor, load_reference, reference_logits

PROMPTS = {
    0: "USER: What is shown? ASSISTANT:",
    1: "USER: <image>\nWhat is shown? ASSISTANT:",
    3: "USER: <image> and then <image><image> differ how? ASSISTANT:",
}
Check = Callable[..., None]


@pytest.fixture(scope="session")
def records() -> list[Architecture]:
    """The records of the three plugins that LLaVA is made of."""
    plugins = (engine_plugin_llava.plugin, engine_plugin_llama.plugin, engine_plugin_towers.plugin)
    return [record for plugin in plugins for record in plugin.engine_architectures()]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    path = tmp_path_factory.mktemp("llava")
    tiny.llava(0, path)
    return path


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of three sizes and three modes."""
    rng = np.random.default_rng(0)
    sizes = [(48, 64), (33, 32), (90, 40)]
    found = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    return [found[0], found[1].convert("L"), found[2].convert("RGBA")]


@pytest.fixture(scope="session")
def assert_equals_hf() -> Check:
    """Asserts, for prompts of so many pictures, that ids are those of HF's processor and logits those of its model."""

    def check(folder: Path, records: Sequence[Architecture], pictures: Sequence[Image.Image], *counts: int) -> None:
        ours, theirs = load_reference(folder, records), load_hf(folder)
        processor, hf_processor = load_processor(folder, records), AutoProcessor.from_pretrained(folder, backend="pil")
        for count in counts:
            text, images = PROMPTS[count].replace("<image>", hf_processor.image_token), list(pictures[:count])
            inputs = hf_processor(text=text, images=images or None, return_tensors="pt")
            with torch.inference_mode():
                expected = theirs(**inputs).logits[0]
            prompt = processor.apply(text, {"image": images})
            assert prompt.prompt_token_ids == inputs["input_ids"][0].tolist()
            assert_close(reference_logits(ours, prompt), expected)

    return check


@pytest.fixture(scope="class")
def pixtral_processor_of_hf() -> Iterator[None]:
    """Lets `AutoProcessor` find transformers' own PixtralProcessor also where torchvision is not installed.

    Of the module that needs torchvision it uses one function, which the module for PIL has as well.
    """
    if find_spec("torchvision") is not None:
        yield
        return
    package = importlib.import_module("transformers.models.pixtral")
    with pytest.MonkeyPatch.context() as patch:
        name = f"{package.__name__}.image_processing_pixtral"
        patch.setitem(sys.modules, name, image_processing_pil_pixtral)
        patch.delitem(sys.modules, f"{package.__name__}.processing_pixtral", raising=False)
        module = importlib.import_module(f"{package.__name__}.processing_pixtral")
        patch.setattr(package, "PixtralProcessor", module.PixtralProcessor)
        patch.setattr(transformers, "PixtralProcessor", module.PixtralProcessor)
        yield

"""LLaVA over every language model that is installed: which one is a matter of config."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llava import tiny
from PIL import Image
from transformers import (
    AutoConfig,
    AutoProcessor,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from sdk import Architecture
from sdk.testing.reference import load_hf, load_target
from sdk.testing.runtime import find_runtime
from sdk.testing.tiny import save_tiny

PROMPTS = {
    "no picture": ("USER: What is shown? ASSISTANT:", 0),
    "one picture": ("USER: <image>\nWhat is shown? ASSISTANT:", 1),
    "three pictures": ("USER: <image> and then <image><image> differ how? ASSISTANT:", 3),
}
TOKENS = 64
WITHOUT_ORACLE = ("MambaForCausalLM", "Mamba2ForCausalLM")
"""transformers' LLaVA asks its language model for `embed_tokens` and `past_key_values`, which its Mambas have not."""
OVER = {
    "llava": (tiny.llava, LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": (tiny.llava_next, LlavaNextConfig, LlavaNextForConditionalGeneration),
}


@cache
def installed() -> list[Architecture]:
    """The records of every installed plugin."""
    modules = {entry.value for entry in entry_points(group="engine.v1") if entry.name != "*"}
    return [record for module in sorted(modules) for record in import_module(module).engine_architectures()]


def language_models() -> dict[str, Architecture]:
    """Those that take text alone, bring a tiny checkpoint, and have an oracle under LLaVA."""
    return {
        r.name: r
        for r in installed()
        if r.kind == "model" and r.role == "causal-lm" and not r.processor and r.tiny and r.name not in WITHOUT_ORACLE
    }


@pytest.fixture(scope="module", params=[(name, over) for name in language_models() for over in OVER], ids="-over-".join)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA over the language model's own tiny config."""
    name, over = request.param
    make, config_class, model_class = OVER[over]
    folder, own = tmp_path_factory.mktemp(over), tmp_path_factory.mktemp(name)
    make(0, folder)
    load_target(str(language_models()[name].tiny))(0, own)
    base = config_class.from_pretrained(folder)
    text = AutoConfig.from_pretrained(own)
    assert text.vocab_size == base.text_config.vocab_size
    text.max_position_embeddings = base.text_config.max_position_embeddings
    if hasattr(text, "word_embed_proj_dim"):
        text.word_embed_proj_dim = text.hidden_size  # pictures are projected to hidden_size, here as in transformers
        text.tie_word_embeddings = False  # transformers' LLaVA looks for the table where OPT does not have it
    for place in (text.__dict__, getattr(text, "rope_parameters", None) or {}):
        if "original_max_position_embeddings" in place:
            # Where a sequence outgrows these, transformers' Phi-3 computes it anew, and its LLaVA over Phi-3 does not.
            place["original_max_position_embeddings"] = text.max_position_embeddings
    values = {
        k: v for k, v in base.to_dict().items() if k not in ("text_config", "vision_config", "tie_word_embeddings")
    }
    config = config_class(
        **values,
        text_config=text,
        vision_config=base.vision_config,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    save_tiny(model_class(config), folder, seed=3)
    return folder


def test_logits_equal_hf(made: Path, assert_equals_hf: Callable[..., None], pictures: list[Image.Image]) -> None:
    assert_equals_hf(made, installed(), pictures, 0, 1, 3)


@torch.inference_mode()
def test_the_engines_greedy_tokens_equal_hf(made: Path, pictures: list[Image.Image]) -> None:
    theirs, processor = load_hf(made), AutoProcessor.from_pretrained(made, backend="pil")
    theirs.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    prompts: list[Any] = []
    expected: list[list[int]] = []
    for text, count in PROMPTS.values():
        images = pictures[:count]
        inputs = processor(text=text, images=images or None, return_tensors="pt")
        out = theirs.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        expected.append(out[0, inputs["input_ids"].shape[1] :].tolist())
        prompts.append({"prompt": text, "multi_modal_data": {"image": images} if images else {}})
    assert max(len(set(tokens)) for tokens in expected) > 3
    opened = find_runtime().open(made)
    try:
        found = [list(answer.token_ids) for answer in opened.generate(prompts, TOKENS)]
    finally:
        opened.close()
    assert dict(zip(PROMPTS, found, strict=True)) == dict(zip(PROMPTS, expected, strict=True))

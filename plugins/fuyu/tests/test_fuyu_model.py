"""Fuyu by itself, against transformers' own: logits at every position."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import FuyuConfig, FuyuForCausalLM

from sdk import Architecture
from sdk.multimodal import join_items
from sdk.testing.reference import (
    assert_close,
    load_hf,
    load_processor,
    load_reference,
    load_target,
    reference_logits,
)
from sdk.testing.tiny import save_tiny

Records = list[Architecture]
Draw = Callable[..., Image.Image]
SIZES = ((64, 48), (9, 7), (200, 30), (1, 1))


def assert_equals_hf(folder: Path, records: Records, draw: Draw) -> None:
    """Without a picture, and with pictures of several grids."""
    ours, theirs, processor = load_reference(folder, records), load_hf(folder), load_processor(folder, records)
    hf_processor = processor.info.get_hf_processor()
    plain = processor.apply("What is shown?")
    with torch.inference_mode():
        expected = theirs(torch.tensor([plain.prompt_token_ids])).logits[0]
    assert_close(reference_logits(ours, plain), expected)
    for size in SIZES:
        inputs = hf_processor(text="What is shown?", images=[draw(*size)], return_tensors="pt")
        with torch.inference_mode():
            expected = theirs(**inputs).logits[0]
        prompt = processor.apply("What is shown?", {"image": [draw(*size)]})
        assert_close(reference_logits(ours, prompt), expected)


def variant(source: Path, target: Path, **change: Any) -> Path:
    """The tiny checkpoint under another config, with fresh weights."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = FuyuConfig.from_pretrained(source)
    for name, value in change.items():
        setattr(config, name, value)
    save_tiny(FuyuForCausalLM(config), target, seed=1)
    return target


def test_logits_equal_hf(folder: Path, records: Records, draw: Draw) -> None:
    assert_equals_hf(folder, records, draw)


@pytest.mark.parametrize("at_the_top", [True, False])
def test_the_top_of_the_config_says_whether_the_head_is_tied(
    folder: Path, tmp_path: Path, records: Records, draw: Draw, at_the_top: bool
) -> None:
    text = FuyuConfig.from_pretrained(folder).text_config
    text.tie_word_embeddings = not at_the_top
    target = variant(folder, tmp_path, text_config=text, tie_word_embeddings=at_the_top)
    assert any("lm_head" in name for name in load_file(target / "model.safetensors")) is not at_the_top
    assert_equals_hf(target, records, draw)


def test_a_published_config_which_is_flat_is_read(folder: Path, tmp_path: Path, records: Records, draw: Draw) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    text = values.pop("text_config")
    flat = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    values |= {name: text[name] for name in (*flat, "max_position_embeddings", "hidden_act", "qk_layernorm")}
    values |= {"rope_theta": 25000.0, "layer_norm_eps": 1e-5}
    path.write_text(json.dumps(values))
    assert FuyuConfig.from_pretrained(tmp_path).text_config.rope_parameters["rope_theta"] == 25000.0
    assert_equals_hf(tmp_path, records, draw)


def bare(name: str) -> str:
    """A tensor's name without what the generations of transformers put before it."""
    return name.removeprefix("model.").replace("language_model.", "").removeprefix("model.")


GENERATIONS: dict[str, Callable[[str], str]] = {
    "as published": lambda name: (
        name
        if name.startswith("vision")
        else f"language_model.{name}"
        if name.startswith("lm_head")
        else f"language_model.model.{name}"
    ),
    "transformers 4.52 and later": lambda name: (
        name
        if name.startswith("lm_head")
        else f"model.{name}"
        if name.startswith("vision")
        else f"model.language_model.{name}"
    ),
    "as transformers 5 saves": lambda name: name if name.startswith("vision") else f"language_model.{name}",
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_generations_of_weight_names_load(folder: Path, tmp_path: Path, records: Records, generation: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    renamed = {GENERATIONS[generation](bare(name)): tensor for name, tensor in weights.items()}
    assert len(renamed) == len(weights)
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    expected = dict(load_reference(folder, records).named_parameters())
    for name, parameter in load_reference(tmp_path, records).named_parameters():
        assert torch.equal(parameter, expected[name])


def test_pictures_of_different_grids_and_requests_embed_together(folder: Path, records: Records, draw: Draw) -> None:
    model, processor = load_reference(folder, records), load_processor(folder, records)
    items = [processor.apply("a", {"image": [draw(*size)]}).items[0] for size in SIZES]
    together = model.get_multimodal_embeddings(**join_items([item.kwargs for item in items]))
    assert [tuple(rows.shape) for rows in together] == [(n, 64) for n in (48, 2, 16, 1)]
    for item, rows in zip(items, together):
        (alone,) = model.get_multimodal_embeddings(**join_items([item.kwargs]))
        assert_close(alone, rows, 1e-5)


def test_pictures_have_no_placeholder_and_nothing_else_is_taken(records: Records) -> None:
    cls = load_target(records[0].model)
    assert cls.get_placeholder_str("image", 1) is None
    with pytest.raises(ValueError, match="audio"):
        cls.get_placeholder_str("audio", 1)

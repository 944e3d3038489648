"""LLaVA by itself, against transformers' own: logits at every position."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

from sdk import Architecture
from sdk.errors import InvalidConfigError, PluginMissingError
from sdk.testing.reference import (
    assert_close,
    load_hf,
    load_processor,
    load_reference,
    load_target,
)
from sdk.testing.tiny import save_tiny

Records = list[Architecture]
Pictures = list[Image.Image]
Check = Callable[..., None]


def variant(source: Path, target: Path, *, processor: dict[str, Any] | None = None, **change: Any) -> Path:
    """The tiny checkpoint under another config, with fresh weights."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = LlavaConfig.from_pretrained(source)
    for name, value in change.items():
        setattr(config, name, value)
    save_tiny(LlavaForConditionalGeneration(config), target, seed=1)
    if processor:
        hf_processor = AutoProcessor.from_pretrained(target, backend="pil")
        for name, value in processor.items():
            setattr(hf_processor, name, value)
        hf_processor.save_pretrained(target)
    return target


def test_logits_equal_hf_without_one_and_with_three_pictures(
    assert_equals_hf: Check, folder: Path, records: Records, pictures: Pictures
) -> None:
    assert_equals_hf(folder, records, pictures, 0, 1, 3)


@pytest.mark.parametrize("layers", [-1, -3, 1, [-2, 0], [1, -1, 1]], ids=str)
def test_any_feature_layer_and_any_list_of_them(
    assert_equals_hf: Check, folder: Path, tmp_path: Path, records: Records, pictures: Pictures, layers: int | list[int]
) -> None:
    assert_equals_hf(variant(folder, tmp_path, vision_feature_layer=layers), records, pictures, 1)


def test_the_class_token_is_kept_where_the_strategy_is_full(
    assert_equals_hf: Check, folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    full = {"vision_feature_select_strategy": "full"}
    assert_equals_hf(variant(folder, tmp_path, processor=full, **full), records, pictures, 1, 3)


def test_projector_without_bias_and_with_another_activation(
    assert_equals_hf: Check, folder: Path, tmp_path: Path, records: Records, pictures: Pictures
) -> None:
    change = {"multimodal_projector_bias": False, "projector_hidden_act": "relu"}
    assert_equals_hf(variant(folder, tmp_path, **change), records, pictures, 1)


@pytest.mark.parametrize("at_the_top", [True, False])
def test_tied_embeddings_wherever_the_config_says_so(
    assert_equals_hf: Check, folder: Path, tmp_path: Path, records: Records, pictures: Pictures, at_the_top: bool
) -> None:
    text = LlavaConfig.from_pretrained(folder).text_config
    text.tie_word_embeddings = not at_the_top
    target = variant(folder, tmp_path, text_config=text, tie_word_embeddings=True)
    assert not any("lm_head" in name for name in load_file(target / "model.safetensors"))
    assert_equals_hf(target, records, pictures, 1)


GENERATIONS: dict[str, Callable[[str], str]] = {
    "as published": lambda name: name.replace("vision_tower.", "vision_tower.vision_model.", 1),
    "transformers 4.52 and later": lambda name: (
        name.replace("language_model.lm_head", "lm_head")
        if "lm_head" in name
        else "model."
        + name.replace("language_model.model.", "language_model.").replace(
            "vision_tower.", "vision_tower.vision_model."
        )
    ),
    "transformers 5 in memory": lambda name: (
        name.replace("language_model.lm_head", "lm_head")
        if "lm_head" in name
        else "model." + name.replace("language_model.model.", "language_model.")
    ),
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_generations_of_weight_names_load(
    assert_equals_hf: Check, folder: Path, tmp_path: Path, records: Records, pictures: Pictures, generation: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    assert {n.split(".")[0] for n in weights} == {"language_model", "vision_tower", "multi_modal_projector"}
    renamed = {GENERATIONS[generation](name): tensor for name, tensor in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    assert_equals_hf(tmp_path, records, pictures, 0, 1)


def test_pictures_of_different_requests_encode_together(folder: Path, records: Records) -> None:
    model = load_reference(folder, records)
    pixels = torch.randn(3, 3, 32, 32)
    together = model.get_multimodal_embeddings(pixels)
    assert together.shape == (3, 16, 64)
    for i in range(3):
        assert_close(model.get_multimodal_embeddings(pixels[i : i + 1])[0], together[i], 1e-5)


def test_embeddings_replace_the_placeholders_and_nothing_else(folder: Path, records: Records) -> None:
    model = load_reference(folder, records)
    ids = torch.tensor([1, 4, 4, 20, 4])
    mask = torch.tensor([False, True, True, False, False])
    rows = torch.randn(2, 64)
    text = model.get_input_embeddings(ids)
    merged = model.get_input_embeddings(ids, [rows], is_multimodal=mask)
    assert torch.equal(merged[mask], rows)
    assert torch.equal(merged[~mask], text[~mask])


def test_only_pictures_have_a_placeholder_and_the_checkpoint_says_which(folder: Path, records: Records) -> None:
    cls = load_target(records[0].model)
    assert cls.get_placeholder_str("image", 1) is None
    assert load_processor(folder, records).dummy_inputs.get_dummy_text({"image": 2}) == "<image><image>"
    with pytest.raises(ValueError, match="audio"):
        cls.get_placeholder_str("audio", 1)


def test_a_part_that_no_plugin_knows_is_named(folder: Path, records: Records) -> None:
    with pytest.raises(PluginMissingError, match="clip_vision_model as a vision-encoder"):
        load_reference(folder, [r for r in records if r.kind == "model"])


def test_building_without_plugins_at_hand_says_so(folder: Path, records: Records) -> None:
    from sdk import ModelContext

    with pytest.raises(InvalidConfigError, match="clip_vision_model"):
        load_target(records[0].model)(ctx=ModelContext(hf_config=LlavaConfig.from_pretrained(folder)))


def test_the_tiny_checkpoint_says_varied_things_about_different_pictures(
    folder: Path, records: Records, pictures: Pictures
) -> None:
    theirs, hf_processor = load_hf(folder), AutoProcessor.from_pretrained(folder, backend="pil")
    said = set()
    for picture in pictures:
        inputs = hf_processor(text="USER: <image>\nWhat is shown? ASSISTANT:", images=[picture], return_tensors="pt")
        out = theirs.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert len(set(out.tolist())) > 4
        said.add(tuple(out.tolist()))
    assert len(said) == 3

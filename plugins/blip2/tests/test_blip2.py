"""BLIP-2 by itself, against transformers' own: the tower, the Q-Former, logits, and the ids of HF's processor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine_plugin_blip2.plugin
import engine_plugin_opt.plugin
import numpy as np
import pytest
import torch
from engine_plugin_blip2 import tiny
from engine_plugin_blip2.processing import Blip2ProcessingInfo
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration

from sdk.errors import InvalidConfigError, InvalidRequestError
from sdk.multimodal.info import InputProcessingContext
from sdk.testing.reference import assert_close, load_hf, load_processor, load_reference, reference_logits
from sdk.testing.tiny import save_tiny, tiny_tokenizer

RECORDS = [
    *engine_plugin_blip2.plugin.engine_architectures(),
    *engine_plugin_opt.plugin.engine_architectures(),
]
TEXT = "Question: what is shown? Answer:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blip2")
    tiny.blip2(0, path)
    return path


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    return load_hf(folder)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return load_reference(folder, RECORDS)


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_tower_gives_hfs_states_layer_by_layer(ours: Any, hf: Any) -> None:
    x = torch.randn(3, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = hf.vision_model(x, output_hidden_states=True)
        assert_close(ours.vision_model(x), theirs.last_hidden_state)
        for mine, expected in zip(ours.vision_model(x, layers=[0, 1, -1]), theirs.hidden_states, strict=True):
            assert_close(mine, expected)


def test_the_q_former_gives_hfs_states(ours: Any, hf: Any) -> None:
    queries, rows = torch.randn(2, tiny.QUERIES, 48), torch.randn(2, 17, 32)
    with torch.inference_mode():
        expected = hf.qformer(query_embeds=queries, encoder_hidden_states=rows).last_hidden_state
        assert_close(ours.qformer(queries, rows), expected)
        assert [layer.crossattention is not None for layer in ours.qformer.layers] == [True, False, True]


def test_logits_with_a_picture_equal_hf(folder: Path, ours: Any, hf: Any) -> None:
    processor = load_processor(folder, RECORDS)
    hf_processor = processor.info.get_hf_processor()
    for text in (TEXT, ""):
        inputs = hf_processor(text=text, images=[picture(1)], return_tensors="pt")
        prompt = processor.apply(text, {"image": [picture(1)]})
        assert prompt.prompt_token_ids == inputs["input_ids"][0].tolist()
        assert prompt.items[0].placeholder.offset == 0
        assert prompt.prompt_token_ids[tiny.QUERIES] == hf_processor.tokenizer.bos_token_id
        with torch.inference_mode():
            assert_close(reference_logits(ours, prompt), hf(**inputs).logits[0])


def test_logits_without_a_picture_are_those_of_the_language_model(folder: Path, ours: Any, hf: Any) -> None:
    prompt = load_processor(folder, RECORDS).apply(TEXT)
    with torch.inference_mode():
        expected = hf.language_model(torch.tensor([prompt.prompt_token_ids])).logits[0]
    assert_close(reference_logits(ours, prompt), expected)


@pytest.mark.parametrize(
    "change", [{"tie_word_embeddings": False}, {"word_embed_proj_dim": 64, "ffn_dim": 96}], ids=str
)
def test_the_language_models_own_config_counts(tmp_path: Path, folder: Path, change: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    model = Blip2ForConditionalGeneration(tiny.config(tokenizer, **change))
    processor = load_processor(folder, RECORDS)
    save_tiny(model, tmp_path, seed=4, processor=processor.info.get_hf_processor())
    inputs = processor.info.get_hf_processor()(text=TEXT, images=[picture(2)], return_tensors="pt")
    prompt = processor.apply(TEXT, {"image": [picture(2)]})
    with torch.inference_mode():
        assert_close(reference_logits(load_reference(tmp_path, RECORDS), prompt), load_hf(tmp_path)(**inputs).logits[0])


def test_what_the_first_training_left_in_a_checkpoint_is_dropped(tmp_path: Path, folder: Path) -> None:
    expected = load_reference(folder, RECORDS).state_dict()
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    left = {
        "qformer.embeddings.word_embeddings.weight": torch.zeros(32, 48),
        "qformer.encoder.layer.0.intermediate.dense.weight": torch.zeros(80, 48),
        "qformer.encoder.layer.0.output.LayerNorm.bias": torch.zeros(48),
    }
    save_file({**weights, **left}, tmp_path / "model.safetensors", {"format": "pt"})
    made = load_reference(tmp_path, RECORDS).state_dict()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_one_picture_a_prompt_of_the_towers_size(folder: Path, ours: Any) -> None:
    with pytest.raises(InvalidRequestError, match="2 image"):
        load_processor(folder, RECORDS).apply(TEXT, {"image": [picture(1), picture(2)]})
    with pytest.raises(ValueError, match="takes pictures of 32 by 32 pixels, not 40 by 24"):
        ours.vision_model(torch.zeros(1, 3, 24, 40))
    with pytest.raises(ValueError, match="takes pictures, not audio"):
        ours.get_placeholder_str("audio", 1)


def test_a_checkpoint_without_a_picture_token_is_refused_with_the_cure() -> None:
    config = SimpleNamespace(image_token_index=None, num_query_tokens=5)
    info = Blip2ProcessingInfo(InputProcessingContext("nowhere", config, None))
    with pytest.raises(InvalidConfigError, match="names no image_token_index"):
        _ = info.picture_tokens

"""The SigLIP tower by itself, against transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_plugin_towers import tiny
from engine_plugin_towers.plugin import engine_architectures
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from sdk.testing.reference import assert_close, load_hf, load_reference
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("siglip")
    tiny.siglip(0, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_hidden_states_are_those_before_the_last_norm(folder: Path, pictures: torch.Tensor) -> None:
    ours = load_reference(folder, RECORDS)
    with torch.inference_mode():
        theirs = load_hf(folder)(pictures, output_hidden_states=True)
        asked = [-1, 0, 2, -3, 3]
        for layer, state in zip(asked, ours(pictures, layers=asked), strict=True):
            assert_close(state, theirs.hidden_states[layer])
        assert_close(ours(pictures), theirs.last_hidden_state)
    assert not torch.allclose(ours(pictures), ours(pictures, layers=[-1])[0])


def test_the_pooling_head_equals_hf(folder: Path, pictures: torch.Tensor) -> None:
    ours = load_reference(folder, RECORDS)
    with torch.inference_mode():
        assert_close(ours.pool(ours(pictures)), load_hf(folder)(pictures).pooler_output)


def test_a_checkpoint_without_the_head_loads_and_says_so(tmp_path: Path, pictures: torch.Tensor) -> None:
    config = SiglipVisionConfig(**tiny.SHAPE, vision_use_head=False)
    save_tiny(SiglipVisionModel(config), tmp_path, seed=1)
    assert not any("head" in name for name in load_file(tmp_path / "model.safetensors"))
    ours = load_reference(tmp_path, RECORDS)
    with torch.inference_mode():
        assert_close(ours(pictures), load_hf(tmp_path)(pictures).last_hidden_state)
    with pytest.raises(ValueError, match="vision_use_head=false"):
        ours.pool(ours(pictures))


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"num_channels": 1}, {"patch_size": 16}], ids=str)
def test_other_configs_equal_hf(tmp_path: Path, change: dict[str, object]) -> None:
    config = SiglipVisionConfig(**{**tiny.SHAPE, "hidden_size": 24, "num_attention_heads": 2, **change})
    save_tiny(SiglipVisionModel(config), tmp_path, seed=1)
    x = torch.randn(2, config.num_channels, 32, 32)
    with torch.inference_mode():
        assert_close(load_reference(tmp_path, RECORDS)(x), load_hf(tmp_path)(x).last_hidden_state)


def test_pixels_that_fill_no_patch_are_left_out_as_in_hf(tmp_path: Path) -> None:
    config = SiglipVisionConfig(**{**tiny.SHAPE, "image_size": 36})
    save_tiny(SiglipVisionModel(config), tmp_path, seed=1)
    x = torch.randn(2, 3, 36, 36)
    with torch.inference_mode():
        assert_close(load_reference(tmp_path, RECORDS)(x), load_hf(tmp_path)(x).last_hidden_state)


def test_names_of_older_checkpoints_load(folder: Path, tmp_path: Path, pictures: torch.Tensor) -> None:
    older = {f"vision_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    assert "vision_model.head.attention.in_proj_weight" in older
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert torch.equal(load_reference(tmp_path, RECORDS)(pictures), load_reference(folder, RECORDS)(pictures))


def test_a_picture_of_another_size_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="SigLIP tower takes pictures of 32 by 32 pixels, not 40 by 32"):
        load_reference(folder, RECORDS)(torch.zeros(1, 3, 32, 40))

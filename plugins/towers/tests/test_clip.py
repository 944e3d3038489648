"""The CLIP tower by itself, against transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_plugin_towers import tiny
from engine_plugin_towers.plugin import engine_architectures
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from sdk.testing.reference import assert_close, load_hf, load_reference
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    tiny.clip(0, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_hidden_states_equal_hf_by_their_index(folder: Path, pictures: torch.Tensor) -> None:
    ours = load_reference(folder, RECORDS)
    with torch.inference_mode():
        theirs = load_hf(folder)(pictures, output_hidden_states=True)
        asked = [-1, 0, 2, -3, 3]
        for layer, state in zip(asked, ours(pictures, layers=asked), strict=True):
            assert_close(state, theirs.hidden_states[layer])
        assert_close(ours(pictures), theirs.last_hidden_state)
        assert_close(ours.pool(ours(pictures)), theirs.pooler_output)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"num_channels": 1}, {"patch_size": 16}], ids=str)
def test_other_configs_equal_hf(tmp_path: Path, change: dict[str, object]) -> None:
    shape = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPVisionConfig(**{**shape, "image_size": 32, "patch_size": 8, **change})
    save_tiny(CLIPVisionModel(config), tmp_path, seed=1)
    x = torch.randn(2, config.num_channels, 32, 32)
    with torch.inference_mode():
        assert_close(load_reference(tmp_path, RECORDS)(x), load_hf(tmp_path)(x).last_hidden_state)


def test_layers_after_the_last_that_is_asked_for_are_not_computed(folder: Path, pictures: torch.Tensor) -> None:
    tower = load_reference(folder, RECORDS)
    ran: list[int] = []
    for i, layer in enumerate(tower.encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    tower(pictures, layers=[-2, 1])
    assert ran == [0, 1]
    ran.clear()
    tower(pictures, layers=[0])
    assert ran == []


def test_names_of_older_checkpoints_load(folder: Path, tmp_path: Path, pictures: torch.Tensor) -> None:
    weights = load_file(folder / "model.safetensors")
    older = {f"vision_model.{name}": tensor for name, tensor in weights.items()}
    older["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert torch.equal(load_reference(tmp_path, RECORDS)(pictures), load_reference(folder, RECORDS)(pictures))


@pytest.mark.parametrize("size", [(32, 40), (24, 24), (64, 64)])
def test_a_picture_of_another_size_is_refused(folder: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"32 by 32 pixels, not {size[1]} by {size[0]}"):
        load_reference(folder, RECORDS)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_does_not_exist_is_refused(folder: Path, pictures: torch.Tensor, layer: int) -> None:
    with pytest.raises(ValueError, match=f"3 layers, so its states are -4 to 3; asked for {layer}"):
        load_reference(folder, RECORDS)(pictures, layers=[layer])


def test_the_plugin_module_loads_no_torch() -> None:
    code = "import sys, engine_plugin_towers.plugin as p; p.engine_architectures(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

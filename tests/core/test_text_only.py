"""A multi-modal model loaded for text alone: no tower, no projector, the same text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llava.model import LlavaForConditionalGeneration
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import LLM
from core.errors import MediaUnsupportedError, PromptUpdateError
from sdk.registry import register, unregister

from .conftest import GREEDY, LLAVA, LLAVA_PARTS, copy_checkpoint, tokens, with_pictures

TEXT_ONLY = {"dtype": "float32", "block_size": 16, "limit_mm_per_prompt": {"image": 0}}
PARTS = ("multi_modal_projector", "vision_tower")


@pytest.fixture
def registered() -> Iterator[Any]:
    """Puts a model class in the place of the installed plugin's."""

    def put(cls: type) -> None:
        register(LLAVA, cls, **LLAVA_PARTS)

    yield put
    unregister(LLAVA)


def own_parts(llm: LLM) -> set[str]:
    return {name.partition(".")[0] for name, _ in llm.engine.model.named_parameters()}


def test_S146_tower_and_projector_are_neither_allocated_nor_read(
    llava: LLM, llava_folder: Path, tmp_path: Path
) -> None:
    folder = copy_checkpoint(llava_folder, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    towers = [name for name in weights if any(part in name for part in PARTS)]
    assert towers
    save_file({n: torch.full_like(t, float("nan")) if n in towers else t for n, t in weights.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    prompts = ["hello there", [9, 10, 11]]
    with LLM(str(folder), **TEXT_ONLY, check_weights=True) as llm:  # what it reads, it looks into
        assert own_parts(llm) == {"language_model"}
        assert sorted(llm.plan.left_out) == list(PARTS)
        assert tokens(llm, prompts) == tokens(llava, prompts)
        full = llava.plan.memory.weights
        assert llm.plan.memory.weights == sum(p.numel() * 4 for p in _language_model(llava_folder)) < full


def _language_model(folder: Path) -> list[Tensor]:
    weights = load_file(folder / "model.safetensors")
    return [t for n, t in weights.items() if not any(part in n for part in PARTS)]


def test_S146_media_are_refused_by_name(llava_folder: Path) -> None:
    with LLM(str(llava_folder), **TEXT_ONLY) as llm:
        with pytest.raises(MediaUnsupportedError, match="limit_mm_per_prompt") as caught:
            llm.generate(with_pictures("a <image>", 1), GREEDY)
        assert caught.value.code == "unsupported_modality"
        with pytest.raises(MediaUnsupportedError):
            llm.chat([{"role": "user", "content": [{"type": "image", "image": b""}, {"type": "text", "text": "x"}]}])
        with pytest.raises(PromptUpdateError):
            llm.generate("a placeholder <image> without its picture", GREEDY)
        llm.chat([{"role": "user", "content": "a typed <image> is text"}], GREEDY)


class Extra(LlavaForConditionalGeneration):
    """A parameter and a module of its own that text reads, and a parameter that only pictures do."""

    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        hidden = ctx.hf_config.text_config.hidden_size
        self.text_scale = nn.Parameter(torch.empty(hidden))
        self.text_norm = nn.Linear(hidden, hidden, bias=False)
        self.newline = nn.Parameter(torch.empty(hidden))

    def get_input_embeddings(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.text_norm(super().get_input_embeddings(*args, **kwargs) * self.text_scale)

    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        return super().get_multimodal_embeddings(pixel_values) + self.newline


class LooksAtValues(Extra):
    """Its text path cannot run without values."""

    def forward(self, input_ids: Any, positions: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert int(positions.max()) >= 0
        return super().forward(input_ids, positions, *args, **kwargs)


def with_extra_weights(folder: Path, target: Path) -> Path:
    copied = copy_checkpoint(folder, target)
    weights = load_file(copied / "model.safetensors")
    weights |= {"text_scale": torch.ones(64), "text_norm.weight": torch.eye(64), "newline": torch.ones(64)}
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    return copied


@pytest.mark.parametrize(
    ("model", "gone"),
    [(Extra, {*PARTS, "newline"}), (LooksAtValues, {"vision_tower"})],
    ids=["by-running-it", "by-its-encoders"],
)
def test_S146_what_text_reads_stays(
    registered: Any, llava: LLM, llava_folder: Path, tmp_path: Path, model: type, gone: set[str]
) -> None:
    registered(model)
    folder = with_extra_weights(llava_folder, tmp_path / "extra")
    with LLM(str(folder), **TEXT_ONLY) as llm:
        assert set(llm.plan.left_out) == gone
        assert tokens(llm, "hello there") == tokens(llava, "hello there")


def test_S146_a_model_that_loads_its_weights_by_itself_stays_whole(
    registered: Any, llava: LLM, llava_folder: Path
) -> None:
    class ByItself(LlavaForConditionalGeneration):
        def load_weights(self, weights: Any) -> set[str]:
            return super().load_weights(weights)

    registered(ByItself)
    with LLM(str(llava_folder), **TEXT_ONLY) as llm:
        assert llm.plan.left_out == ()
        assert tokens(llm, "hello there") == tokens(llava, "hello there")
        with pytest.raises(MediaUnsupportedError):
            llm.generate(with_pictures("a <image>", 1), GREEDY)


def test_one_picture_allowed_loads_everything(llava_folder: Path) -> None:
    with LLM(str(llava_folder), **{**TEXT_ONLY, "limit_mm_per_prompt": {"image": 1}}) as llm:
        assert llm.plan.left_out == ()
        assert own_parts(llm) == {"language_model", *PARTS}

"""Fuyu through the engine: pictures of different grids in one batch say what they say in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_fuyu.tiny import fuyu
from PIL import Image

from core import LLM, SamplingParams
from core.errors import InvalidRequestError, MediaUnsupportedError
from sdk.testing.reference import load_hf

GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
# Width, height: the target is 64 by 48 in patches of 8 by 8; grids of 1 to 48 patches, larger ones fitted.
SIZES = ((64, 48), (1, 1), (33, 32), (200, 30), (30, 200), (640, 479), (9, 7))
TEXTS = ("What is shown?", "", "it ends with ", "The quick brown fox")


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width * 10_007 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def prompts() -> list[dict[str, Any]]:
    """Each size with a text, and one prompt without a picture among them."""
    made: list[dict[str, Any]] = [
        {"prompt": TEXTS[i % len(TEXTS)], "multi_modal_data": {"image": picture(*size)}} for i, size in enumerate(SIZES)
    ]
    made.insert(3, {"prompt": "What is shown?"})
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("fuyu")
    fuyu(0, path)
    return path


@pytest.fixture(scope="module")
def said_by_hf(folder: Path) -> list[list[int]]:
    """Greedy tokens of transformers, each prompt by itself, with the inputs that its own processor makes."""
    from engine_plugin_fuyu.hf_processor import mend
    from transformers import AutoProcessor

    processor, model = mend(AutoProcessor.from_pretrained(folder, backend="pil")), load_hf(folder)
    model.generation_config.eos_token_id = None
    said = []
    for prompt in prompts():
        pictures = {"images": [prompt["multi_modal_data"]["image"]]} if "multi_modal_data" in prompt else {}
        inputs = processor(text=prompt["prompt"], **pictures, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=64, do_sample=False, pad_token_id=3)
        said.append(out[0, inputs["input_ids"].shape[1] :].tolist())
    return said


@pytest.mark.parametrize("caching", [False, True], ids=["nothing kept", "pages and embeddings kept"])
@pytest.mark.parametrize("budget", [2048, 20, 7], ids=["whole prompts", "chunks of 20", "chunks of 7"])
def test_greedy_tokens_of_a_batch_are_those_of_transformers(
    folder: Path, said_by_hf: list[list[int]], budget: int, caching: bool
) -> None:
    assert len({tuple(tokens) for tokens in said_by_hf}) == len(said_by_hf)
    options: dict[str, Any] = {"enable_prefix_caching": caching, "max_num_batched_tokens": budget}
    with LLM(str(folder), dtype="float32", **options) as llm:
        for _ in range(1 + caching):
            made = [list(output.outputs[0].token_ids) for output in llm.generate(prompts(), GREEDY)]
            assert made == said_by_hf


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32") as opened:
        yield opened


def test_a_prompt_that_is_wrong_fails_alone(llm: LLM, said_by_hf: list[list[int]]) -> None:
    two = {"prompt": "a", "multi_modal_data": {"image": [picture(8, 8)] * 2}}
    embedded = {"prompt": "a", "multi_modal_data": {"image": torch.zeros(12, 64)}}
    made = llm.generate([two, *prompts()[:2], embedded], GREEDY, on_error="return")
    assert isinstance(made[0].error, InvalidRequestError)
    assert isinstance(made[3].error, MediaUnsupportedError)
    assert [list(output.outputs[0].token_ids) for output in made[1:3]] == said_by_hf[:2]


def test_pictures_that_were_processed_before_run_beside_raw_ones(llm: LLM, said_by_hf: list[list[int]]) -> None:
    raw = prompts()[2]
    (item,) = llm.engine.inputs.process(raw).prompt.items
    patches, grid = item.kwargs["image_patches"].value, item.kwargs["image_grid_hw"].value[None]
    given = [{name: patches, "image_grid_hw": grid} for name in ("pixel_values", "image_patches")]
    processed = [{"prompt": raw["prompt"], "multi_modal_data": {"image": picture}} for picture in given]
    made = [list(output.outputs[0].token_ids) for output in llm.generate([*processed, raw], GREEDY)]
    assert made == [said_by_hf[2]] * 3


def test_text_alone_says_the_same_without_the_layer_for_patches(folder: Path, said_by_hf: list[list[int]]) -> None:
    with LLM(str(folder), dtype="float32", limit_mm_per_prompt={"image": 0}) as llm:
        (made,) = llm.generate([prompts()[3]], GREEDY)
        assert list(made.outputs[0].token_ids) == said_by_hf[3]
        assert not [name for name, _ in llm.engine.runner.model.named_parameters() if "vision" in name]


def test_chat_with_a_template_for_text_puts_the_picture_first(folder: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    parts = [{"type": "text", "text": "What is shown?"}, {"type": "image", "image": picture(33, 32)}]
    with LLM(str(folder), dtype="float32", chat_template=template) as llm:
        (chat,) = llm.chat([{"role": "user", "content": parts}], GREEDY)
        prompt = {"prompt": "What is shown?", "multi_modal_data": {"image": picture(33, 32)}}
        (plain,) = llm.generate([prompt], GREEDY)
    assert chat.prompt_token_ids == plain.prompt_token_ids
    assert chat.outputs[0].token_ids == plain.outputs[0].token_ids

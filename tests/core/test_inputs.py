"""Whatever form a prompt has, it leaves the front door as checked ids, or with an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core import LLM, SamplingParams
from core.errors import ContextLengthError, EngineError, InvalidConfigError, InvalidRequestError, PluginRuntimeError

from .conftest import SHORT, Faulty, copy_checkpoint, picture, prompt_ids, tokens, with_pictures

HALF = "\ud800"
"""Half of a character outside the basic plane, as broken JSON or a broken decoder leaves it."""


def test_every_form_of_a_prompt_is_the_same_prompt(llama: LLM) -> None:
    ids = prompt_ids(1, 6)
    forms: list[Any] = [
        ids,
        [ids],
        np.array(ids),
        np.array([ids]),
        torch.tensor(ids),
        [np.array(ids)],
        [list(np.array(ids))],
        list(np.array(ids)),
        tuple(ids),
        {"prompt_token_ids": ids},
        {"prompt_token_ids": torch.tensor(ids), "prompt": None, "multi_modal_data": None, "mm_processor_kwargs": None},
        [{"prompt_token_ids": tuple(ids), "multi_modal_data": {"image": []}}],
    ]
    for form in forms:
        (output,) = llama.generate(form, SamplingParams(max_tokens=1))
        assert output.prompt_token_ids == ids
        assert all(type(t) is int for t in output.prompt_token_ids)


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        2.5,
        [None],
        [[9], 2.5],
        {},
        {"prompt": None},
        {"prompt": "a", "prompt_token_ids": [9]},
        {"promt": "a"},
        {"prompt": 5},
        {"prompt": "a", "multi_modal_data": [picture()]},
        {"prompt": "a", "mm_processor_kwargs": 5},
        {"prompt": "a", "mm_processor_kwargs": {"size": 5}},
        {"prompt_token_ids": "abc"},
        {"prompt_token_ids": 9},
        HALF,
        {"prompt": "text before" + HALF},
    ],
)
def test_R011_what_is_no_prompt_is_a_typed_error(llama: LLM, prompt: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llama.generate(prompt, SHORT)
    assert caught.value.status == 400
    assert caught.value.param


def test_half_a_character_in_a_chat(llama: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="half a character"):
        llama.chat([{"role": "user", "content": f"hi {HALF}"}], SHORT)


def test_R017_a_chat_over_any_context_is_refused_before_it_is_tokenized(llama: LLM) -> None:
    with pytest.raises(ContextLengthError, match="characters"):
        llama.chat([{"role": "user", "content": "x" * (llama.plan.max_model_len * 16)}], SHORT)


def test_R014_a_token_of_the_tokenizer_that_the_model_was_not_trained_with(llama_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    copy_checkpoint(llama_folder, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<late>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    with LLM(str(tmp_path), dtype="float32") as llm:
        expected = tokens(llm, "fine", SHORT)
        with pytest.raises(InvalidRequestError, match="'<late>'") as caught:
            llm.generate("a <late> token", SHORT)
        assert caught.value.code == "invalid_token"
        # Typed in a chat it is text, which has other tokens.
        assert llm.chat([{"role": "user", "content": "a <late> token"}], SHORT)[0].finished
        assert tokens(llm, "fine", SHORT) == expected


@pytest.mark.parametrize("form", ["list", "tensor", "embeds", "pixels"])
def test_R031_the_limit_counts_items_in_every_form(llava_folder: Path, form: str) -> None:
    width = 64
    many: dict[str, Any] = {
        "list": [picture()] * 3,
        "tensor": torch.zeros(3, 16, width),
        "embeds": {"image_embeds": torch.zeros(3, 16, width)},
        "pixels": {"pixel_values": torch.zeros(3, 3, 32, 32)},
    }
    prompt = {"prompt": "<image>" * 3, "multi_modal_data": {"image": many[form]}}
    with LLM(str(llava_folder), dtype="float32", limit_mm_per_prompt={"image": 2}) as llm:
        with pytest.raises(InvalidRequestError, match="the limit is 2") as caught:
            llm.generate(prompt, SHORT)
        assert caught.value.code == "too_many_items"
    with LLM(str(llava_folder), dtype="float32", limit_mm_per_prompt={"image": 3}) as llm:
        assert len(tokens(llm, prompt, SHORT)[0]) == 12


def test_R031_pictures_over_the_limit_are_not_even_opened(llava: LLM, tmp_path: Path) -> None:
    parts = [{"type": "image", "path": str(tmp_path / "nowhere.png")}] * 9
    with pytest.raises(InvalidRequestError, match="9 image items") as caught:
        llava.chat([{"role": "user", "content": parts}], SHORT)
    assert caught.value.code == "too_many_items"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5, 3), dtype=np.uint8),
        np.zeros((5, 5, 2), dtype=np.uint8),
        np.zeros((5, 5, 5), dtype=np.uint8),
        np.zeros((5, 5, 3), dtype=np.float32),
        np.zeros((5,), dtype=np.uint8),
        5,
        object(),
    ],
)
def test_R026_arrays_that_are_no_pictures(llava: LLM, array: Any) -> None:
    with pytest.raises(InvalidRequestError, match="image 0"):
        llava.generate({"prompt": "<image>", "multi_modal_data": {"image": array}}, SHORT)


def test_pictures_as_arrays_are_the_pictures(llava: LLM) -> None:
    image = picture(3, 32, 32)
    pixels = np.asarray(image)
    forms = [image, pixels, torch.tensor(pixels), pixels.transpose(2, 0, 1), [pixels]]
    prompts = [{"prompt": "a <image>", "multi_modal_data": {"image": f}} for f in forms]
    assert len({tuple(t) for t in tokens(llava, prompts, SHORT)}) == 1


def test_R070_what_a_processor_says_of_its_memory_is_not_passed_on(faulty: Faulty) -> None:
    from engine_plugin_llava.processing import LlavaMultiModalProcessor

    class Leaks(LlavaMultiModalProcessor):
        def _call_hf_processor(self, prompt: str, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
            raise ValueError(f"cannot use {object()!r}")

    with faulty("processor", Leaks) as llm, pytest.raises(PluginRuntimeError, match="cannot use <object object") as e:
        llm.generate(with_pictures("<image>", 1), SHORT)
    assert "0x…" in e.value.message
    assert "0x7" not in e.value.message


def test_R071_a_prompt_update_that_raises_names_the_plugin(faulty: Faulty) -> None:
    from engine_plugin_llava.processing import LlavaMultiModalProcessor

    from sdk.multimodal import PromptReplacement

    class Raises(LlavaMultiModalProcessor):
        def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
            target = [self.info.get_hf_config().image_token_id]
            return [PromptReplacement("image", target, lambda i: {}["no such key"])]

    with faulty("processor", Raises) as llm:
        outputs = llm.generate([with_pictures("<image>", 1), "fine"], SHORT, on_error="return")
        assert isinstance(outputs[0].error, PluginRuntimeError)
        assert outputs[0].error.hook == "_get_prompt_updates"
        assert "engine-plugin-llava" in outputs[0].error.plugin
        assert outputs[1].error is None


def test_R071_two_items_that_want_one_place(faulty: Faulty) -> None:
    from engine_plugin_llava.processing import LlavaMultiModalProcessor

    from sdk.multimodal import PromptReplacement

    class Overlaps(LlavaMultiModalProcessor):
        def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
            image = self.info.get_hf_config().image_token_id
            first, second = (list(x) for x in ([9, image], [image, 9]))
            return [
                PromptReplacement("image", first, [image] * 16),
                PromptReplacement("image", second, [image] * 16),
            ]

    with faulty("processor", Overlaps) as llm:
        image = llm.engine.inputs.mm_processor.info.get_hf_config().image_token_id
        # `9 <image> 9`: the one place serves either update, and the second picture finds none.
        prompt = {"prompt_token_ids": [9, image, 9], "multi_modal_data": {"image": [picture(), picture(1)]}}
        with pytest.raises(EngineError, match="2 image items") as caught:
            llm.generate(prompt, SHORT)
        assert caught.value.code == "placeholder_mismatch"


def test_the_models_own_limit_on_tokens_gives_way_to_the_context(llama_folder: Path, tmp_path: Path) -> None:
    copy_checkpoint(llama_folder, tmp_path)
    asked = {"max_new_tokens": 2048, "do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "eos_token_id": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(asked))
    with LLM(str(tmp_path), dtype="float32", max_model_len=40) as llm:
        found = llm.default_sampling_params()
        assert (found.temperature, found.top_p, found.top_k) == (0.5, 0.9, 7)
        output = llm.generate(prompt_ids(1, 35))[0].outputs[0]
        assert output.finish_reason in ("length", "stop")
        assert len(output.token_ids) <= 5
        with pytest.raises(ContextLengthError, match="max_tokens=2048"):
            llm.generate(prompt_ids(1, 35), SamplingParams(max_tokens=2048))


def test_a_generation_config_limits_the_tokens(llama_folder: Path, tmp_path: Path) -> None:
    copy_checkpoint(llama_folder, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"max_new_tokens": 3, "eos_token_id": [2, 5]}))
    with LLM(str(tmp_path), dtype="float32") as llm:
        assert llm.engine.eos_token_ids == {2, 5}
        assert llm.default_sampling_params().greedy
        assert len(llm.generate(prompt_ids(2, 5))[0].outputs[0].token_ids) <= 3


@pytest.mark.parametrize("files", [["tokenizer.json", "tokenizer_config.json"]])
def test_a_model_without_a_tokenizer_names_the_option(llama_folder: Path, tmp_path: Path, files: list[str]) -> None:
    copy_checkpoint(llama_folder, tmp_path, but=files)
    with pytest.raises(InvalidConfigError, match="tokenizer=…"):
        LLM(str(tmp_path), dtype="float32")
    with LLM(str(tmp_path), dtype="float32", tokenizer=str(llama_folder)) as llm:
        assert llm.generate("hello", SHORT)[0].finished


@pytest.mark.parametrize("name", ["temperature", "top_p", "n", "max_tokens", "seed", "top_k", "logprobs"])
def test_R003_R015_numbers_that_are_none(name: str) -> None:
    whole = [] if name in ("temperature", "top_p") else [2.0, None] if name in ("n", "top_k") else [2.0]
    for value in [-(10**400), -(10**5000), float("nan"), float("inf"), -float("inf"), "1", True, [1], 1j, *whole]:
        with pytest.raises(InvalidRequestError, match=name) as caught:
            SamplingParams(**{name: value})
        assert len(str(caught.value)) < 200


def test_R003_R014_a_token_of_five_thousand_digits(llama: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="very many digits") as caught:
        llama.generate({"prompt_token_ids": [10**5000]}, SHORT)
    assert caught.value.code == "invalid_token"


def test_numpys_numbers_are_numbers() -> None:
    made = SamplingParams(
        n=np.int64(2), max_tokens=np.int32(5), temperature=np.float32(0.5), top_p=np.float64(1), seed=np.int64(2**62)
    )
    assert made == SamplingParams(n=2, max_tokens=5, temperature=0.5, top_p=1.0, seed=2**62)
    assert type(made.seed) is int


@pytest.mark.parametrize(
    ("name", "value"), [("stop", 5), ("stop_token_ids", 5), ("stop", [5]), ("stop_token_ids", "a")]
)
def test_R011_stops_of_another_kind(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        SamplingParams(**{name: value})


def test_R046_eight_pictures_in_one_prompt_are_one_pass(llava: LLM) -> None:
    images = [Image.new("RGB", (8, 8), (i * 30, 0, 0)) for i in range(8)]
    output = llava.generate({"prompt": "<image>" * 8, "multi_modal_data": {"image": images}}, SHORT)[0]
    assert len(output.prompt_token_ids) == 8 * 16 + 1

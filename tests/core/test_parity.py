"""The engine says what transformers says: tokens, log-probabilities and ids, from every spelling of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from core import LLM, SamplingParams
from core.demos import find_demo
from core.errors import ModelNotFoundError
from sdk.testing.tiny import save_tiny, tiny_tokenizer

from .conftest import GREEDY, Hf, copy_checkpoint, hf_greedy, ids_of, picture, prompt_ids, tokens

PICTURES = {
    "none": ("hello there", 0),
    "one": ("USER: <image>\nWhat is this? ASSISTANT:", 1),
    "three": ("a <image> b <image> and <image> c", 3),
    "middle": ("this is a long text before <image> and some after it", 1),
    "end": ("look: <image>", 1),
    "alone": ("<image>", 1),
    "side by side": ("<image><image>", 2),
}


def test_text_of_every_length_gives_transformers_tokens(llama: LLM, llama_folder: Path, hf: Hf) -> None:
    prompts = [prompt_ids(n, n) for n in (1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 100, 130)]
    for prompt in prompts:
        (found,) = tokens(llama, [prompt])
        assert found == hf_greedy(hf(llama_folder), ids_of(prompt), found), len(prompt)


def test_transformers_own_generate_gives_the_same_tokens(llama: LLM, llama_folder: Path, hf: Hf) -> None:
    prompt = prompt_ids(7, 9)
    with torch.inference_mode():
        theirs = hf(llama_folder).generate(**ids_of(prompt), do_sample=False, max_new_tokens=64)[0, 9:].tolist()
    assert tokens(llama, [prompt]) == [theirs]


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_windows_biases_and_tied_heads(tmp_path: Path, hf: Hf, name: str) -> None:
    getattr(llama_tiny, name)(1, tmp_path)
    prompts = [prompt_ids(i, n) for i, n in enumerate((3, 23, 24, 25, 90))]
    with LLM(str(tmp_path), dtype="float32", max_num_batched_tokens=50, block_size=8) as llm:
        for prompt, found in zip(prompts, tokens(llm, prompts)):
            assert found == hf_greedy(hf(tmp_path), ids_of(prompt), found), len(prompt)


@pytest.mark.parametrize(
    "shape",
    [
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"num_key_value_heads": 4, "head_dim": 24, "attention_bias": True, "mlp_bias": True},
        {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {
            "num_key_value_heads": 2,
            "max_position_embeddings": 32,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        },
    ],
    ids=["one kv head, tied", "no sharing, biases", "linear rope", "dynamic rope"],
)
def test_shapes_that_llamas_come_in(tmp_path: Path, hf: Hf, shape: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        **shape,
    )
    save_tiny(LlamaForCausalLM(config), tmp_path, seed=3, tokenizer=tokenizer)
    prompts = [prompt_ids(i, n) for i, n in enumerate((1, 20, 45))]
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    with LLM(str(tmp_path), dtype="float32", block_size=8, max_model_len=128) as llm:
        for prompt, found in zip(prompts, tokens(llm, prompts, params)):
            if "rope_type" in shape.get("rope_parameters", {}) and shape["rope_parameters"]["rope_type"] == "dynamic":
                with torch.inference_mode():
                    theirs = hf(tmp_path).generate(**ids_of(prompt), do_sample=False, max_new_tokens=20)
                assert found == theirs[0, len(prompt) :].tolist()
            else:
                assert found == hf_greedy(hf(tmp_path), ids_of(prompt), found), len(prompt)


@pytest.mark.parametrize(("text", "pictures"), PICTURES.values(), ids=PICTURES)
def test_pictures_give_transformers_ids_and_tokens(
    llava: LLM, llava_folder: Path, hf: Hf, text: str, pictures: int
) -> None:
    images = [picture(i) for i in range(pictures)]
    processor = AutoProcessor.from_pretrained(llava_folder, backend="pil")
    inputs = processor(text=text, images=images or None, return_tensors="pt")
    output = llava.generate({"prompt": text, "multi_modal_data": {"image": images}}, GREEDY)[0]
    assert output.prompt_token_ids == inputs["input_ids"][0].tolist()
    found = list(output.outputs[0].token_ids)
    assert found == hf_greedy(hf(llava_folder), inputs, found)


def test_logprobs_are_transformers_log_softmax(llama: LLM, llama_folder: Path, hf: Hf) -> None:
    prompt = prompt_ids(3, 20)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=5)
    output = llama.generate(prompt, params)[0].outputs[0]
    with torch.inference_mode():
        logits = hf(llama_folder)(torch.tensor([prompt + list(output.token_ids)])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    for row, found, chosen in zip(expected, output.logprobs, output.token_ids, strict=True):
        top = row.topk(5)
        assert list(found) == top.indices.tolist()
        assert [p.rank for p in found.values()] == [1, 2, 3, 4, 5]
        assert found[chosen].rank == 1
        torch.testing.assert_close(torch.tensor([p.logprob for p in found.values()]), top.values, atol=1e-4, rtol=0)
    assert output.cumulative_logprob == pytest.approx(
        sum(p[t].logprob for p, t in zip(output.logprobs, output.token_ids))
    )


def test_logprobs_of_a_drawn_token_come_with_its_own_rank(llama: LLM, llama_folder: Path, hf: Hf) -> None:
    prompt = prompt_ids(4, 8)
    params = SamplingParams(temperature=3.0, max_tokens=16, ignore_eos=True, logprobs=1, seed=5)
    output = llama.generate(prompt, params)[0].outputs[0]
    with torch.inference_mode():
        logits = hf(llama_folder)(torch.tensor([prompt + list(output.token_ids)])).logits[0, len(prompt) - 1 : -1]
    ranks = []
    for row, found, chosen in zip(logits.log_softmax(-1), output.logprobs, output.token_ids, strict=True):
        assert found[chosen].logprob == pytest.approx(float(row[chosen]), abs=1e-4)
        ranks.append(found[chosen].rank)
        assert ranks[-1] == int((row > row[chosen]).sum()) + 1
        assert len(found) == (1 if ranks[-1] == 1 else 2)
    assert max(ranks) > 1


def respelled(folder: Path, target: Path, rename: Callable[[str], str]) -> Path:
    """A copy of a checkpoint whose tensors bear other names."""
    copy_checkpoint(folder, target, but=["model.safetensors"])
    weights = load_file(folder / "model.safetensors")
    save_file({rename(k): v for k, v in weights.items()}, target / "model.safetensors", {"format": "pt"})
    return target


SPELLINGS: dict[str, Callable[[str], str]] = {
    "published": llava_tiny.published,
    "transformers 4.52": lambda name: llava_tiny.under_model(llava_tiny.published(name)),
    "transformers 5": llava_tiny.under_model,
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_every_generation_of_names_loads_to_the_same_model(
    llava: LLM, llava_folder: Path, tmp_path: Path, spelling: Callable[[str], str]
) -> None:
    prompt = {"prompt": "a <image> b", "multi_modal_data": {"image": picture()}}
    folder = respelled(llava_folder, tmp_path, spelling)
    assert set(load_file(folder / "model.safetensors")) != set(load_file(llava_folder / "model.safetensors"))
    with LLM(str(folder), dtype="float32") as other:
        assert tokens(other, prompt) == tokens(llava, prompt)


def test_a_sharded_checkpoint_loads_by_its_index(llama: LLM, llama_folder: Path, tmp_path: Path) -> None:
    weights = load_file(llama_folder / "model.safetensors")
    names = sorted(weights)
    index = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        save_file({n: weights[n] for n in part}, tmp_path / file, {"format": "pt"})
        index.update(dict.fromkeys(part, file))
    copy_checkpoint(llama_folder, tmp_path, but=["model.safetensors"])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    save_file({"stray": torch.zeros(1)}, tmp_path / "not-in-the-index.safetensors")
    with LLM(str(tmp_path), dtype="float32") as other:
        assert tokens(other, [prompt_ids(1, 9)]) == tokens(llama, [prompt_ids(1, 9)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_load_and_stay_near_float32(llama: LLM, llama_folder: Path, dtype: str) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    prompts = [prompt_ids(i, 12) for i in range(8)]
    exact = [o.outputs[0].logprobs[0] for o in llama.generate(prompts, params)]
    with LLM(str(llama_folder), dtype=dtype) as llm:
        assert llm.plan.dtype == dtype
        for found, wanted in zip((o.outputs[0].logprobs[0] for o in llm.generate(prompts, params)), exact):
            common = found.keys() & wanted.keys()
            assert len(common) >= 3
            assert all(abs(found[t].logprob - wanted[t].logprob) < 0.15 for t in common)


def test_chat_ids_are_those_of_transformers_own_template(llama: LLM, llama_folder: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, who are you?  Två  mellanslag\n\nund Zeilen 快 🙂"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": ""},
    ]
    theirs = AutoTokenizer.from_pretrained(llama_folder).apply_chat_template(messages, add_generation_prompt=True)
    ours = llama.chat(messages, SamplingParams(max_tokens=1))[0].prompt_token_ids
    assert ours == list(theirs["input_ids"] if hasattr(theirs, "keys") else theirs)


def test_chat_with_a_picture_has_the_ids_of_transformers_processor(llava: LLM, llava_folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(llava_folder, backend="pil")
    parts = [{"type": "image", "image": picture()}, {"type": "text", "text": "What is it?"}]
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ours = llava.chat([{"role": "user", "content": parts}], SamplingParams(max_tokens=1))[0].prompt_token_ids
    assert ours == theirs["input_ids"][0].tolist()


def test_the_end_token_ends_a_sequence(llama: LLM) -> None:
    (eos,) = llama.engine.eos_token_ids
    free = SamplingParams(temperature=2.0, max_tokens=40, ignore_eos=True, seed=1)
    prompts = [prompt_ids(seed, 4) for seed in range(40)]
    prompt, found = next((p, t) for p, t in zip(prompts, tokens(llama, prompts, free)) if eos in t)
    bound = SamplingParams(temperature=2.0, max_tokens=40, seed=1)
    output = llama.generate(prompt, bound)[0].outputs[0]
    assert list(output.token_ids) == found[: found.index(eos) + 1]
    assert (output.finish_reason, output.stop_reason) == ("stop", None)


def test_the_demo_says_what_transformers_says(hf: Hf) -> None:
    try:
        folder = find_demo("demo/llava")
    except ModelNotFoundError as e:
        pytest.skip(f"the demo model is not there: {e}")
    assert folder is not None
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    text = "USER: <image>\nWhat is in the picture? ASSISTANT:"
    with LLM("demo/llava", dtype="float32") as llm:
        for image in (picture(1, 200, 200), Image.new("RGB", (96, 96), (250, 20, 20))):
            inputs = processor(text=text, images=[image], return_tensors="pt")
            (found,) = tokens(llm, {"prompt": text, "multi_modal_data": {"image": image}})
            assert found == hf_greedy(hf(folder), inputs, found)

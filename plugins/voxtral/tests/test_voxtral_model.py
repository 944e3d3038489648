"""Encoder, projector and language model together, against transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_voxtral import tiny
from engine_plugin_voxtral.geometry import rows_per_window
from engine_plugin_voxtral.model import VoxtralForConditionalGeneration
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, GenerationConfig

from sdk import Architecture
from sdk.errors import InvalidConfigError
from sdk.multimodal import join_items
from sdk.testing.reference import assert_close, load_hf, load_processor, load_reference, reference_logits
from sdk.testing.runtime import find_runtime

from .conftest import KWARGS, PROMPTS, Clip, Request, Wave, as_wav, noise, split

Records = list[Architecture]
TOKENS = 64


@torch.inference_mode()
def test_encoder_and_projector_states_equal_hf(
    folder: Path, hf: Any, records: Records, processor: Any, clip: Clip
) -> None:
    waves = [clip(0.3, 1), clip(4.7, 2), clip(2.0, 3)]
    items = [processor.apply("[AUDIO]", {"audio": wave}).items[0] for wave in waves]
    inputs = join_items([item.kwargs for item in items])
    ours = load_reference(folder, records)
    theirs = hf.get_audio_features(inputs["input_features"], return_dict=True)
    assert_close(ours.audio_tower(inputs["input_features"]), theirs.last_hidden_state, 1e-5)
    together = ours.get_multimodal_embeddings(**inputs)
    assert [tuple(rows.shape) for rows in together] == [(25, 64), (75, 64), (25, 64)]
    assert_close(torch.cat(together), theirs.pooler_output, 1e-5)
    for item, rows in zip(items, together):
        (alone,) = ours.get_multimodal_embeddings(**join_items([item.kwargs]))
        assert_close(alone, rows, 1e-5)


@torch.inference_mode()
def test_logits_equal_hf(
    folder: Path, hf: Any, records: Records, processor: Any, hf_chat: Request, parts: list[str | Wave]
) -> None:
    text, clips = split(parts)
    expected = hf(**hf_chat(parts)).logits[0]
    assert_close(reference_logits(load_reference(folder, records), processor.apply(text, {"audio": clips})), expected)


@torch.inference_mode()
def assert_engine_equals_hf(folder: Path, hf: Any, hf_chat: Request) -> None:
    """Greedy tokens of all prompts, in one batch."""
    hf.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    prompts: list[Any] = []
    expected = []
    for found in PROMPTS.values():
        parts = [part if isinstance(part, str) else noise(part, seed) for seed, part in enumerate(found)]
        inputs = hf_chat(parts)
        out = hf.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        expected.append(out[0, inputs["input_ids"].shape[1] :].tolist())
        text, clips = split(parts)
        prompts.append({"prompt": text, "multi_modal_data": {"audio": clips} if clips else {}})
    assert min(len(set(tokens)) for tokens in expected) > 3
    opened = find_runtime().open(folder)
    try:
        made = [list(answer.token_ids) for answer in opened.generate(prompts, TOKENS)]
    finally:
        opened.close()
    assert dict(zip(PROMPTS, made)) == dict(zip(PROMPTS, expected))


def test_greedy_tokens_of_the_engine_equal_hf(folder: Path, hf: Any, hf_chat: Request) -> None:
    assert_engine_equals_hf(folder, hf, hf_chat)


def language_model(name: str) -> Any:
    """A small config of another language model."""
    from transformers import MistralConfig, Qwen2Config

    shape: dict[str, Any] = {
        "vocab_size": 360,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,  # transformers' config of Voxtral takes what is not said for that of the published models
        "max_position_embeddings": 512,
    }
    if name == "mistral":
        return MistralConfig(**shape, sliding_window=24)
    return Qwen2Config(**shape, tie_word_embeddings=True)  # which says nothing here: the head is Voxtral's own


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_over_another_language_model(tmp_path: Path, hf_chat: Request, name: str) -> None:
    tiny.write(2, tmp_path, tiny.voxtral_config(language_model(name)))
    assert_engine_equals_hf(tmp_path, load_hf(tmp_path), hf_chat)


@pytest.mark.parametrize(
    "audio", [{"num_mel_bins": 128}, {"intermediate_size": 64}, {"activation_function": "relu"}], ids=str
)
@torch.inference_mode()
def test_over_another_encoder(tmp_path: Path, records: Records, clip: Clip, audio: dict[str, Any]) -> None:
    config = tiny.voxtral_config(**audio)
    tiny.write(3, tmp_path, config)
    ours, theirs = load_reference(tmp_path, records), load_hf(tmp_path)
    prompt = load_processor(tmp_path, records).apply("[INST][AUDIO][/INST]", {"audio": clip(3.1)})
    rows = rows_per_window(config.audio_config)
    assert prompt.prompt_token_ids.count(24) == 2 * rows == 200 * 32 // config.audio_config.intermediate_size
    features = prompt.items[0].kwargs["input_features"].value
    expected = theirs(input_ids=torch.tensor([prompt.prompt_token_ids]), input_features=features).logits[0]
    assert_close(reference_logits(ours, prompt), expected)


@pytest.mark.parametrize("seconds", [[29.9], [30.0, 31.5]], ids=str)
@torch.inference_mode()
def test_windows_as_published_and_transformers_untouched(
    tmp_path: Path, records: Records, clip: Clip, seconds: list[float]
) -> None:
    """30 s, 128 mel bins, 1500 states: nothing is said to HF's processor."""
    config = tiny.voxtral_config(num_mel_bins=128, max_source_positions=1500)
    config.text_config.max_position_embeddings = 2048
    tiny.write(4, tmp_path, config)
    ours, theirs = load_reference(tmp_path, records), load_hf(tmp_path)
    waves = [clip(s, seed) for seed, s in enumerate(seconds)]
    content = [*({"type": "audio", "base64": as_wav(wave)} for wave in waves), {"type": "text", "text": "And?"}]
    inputs = AutoProcessor.from_pretrained(tmp_path).apply_chat_template([{"role": "user", "content": content}])
    made = load_processor(tmp_path, records).apply(f"[INST]{'[AUDIO]' * len(waves)}And?[/INST]", {"audio": waves})
    assert made.prompt_token_ids == inputs["input_ids"][0].tolist()
    assert made.prompt_token_ids.count(24) == 375 * len(inputs["input_features"])
    assert torch.equal(
        torch.cat([item.kwargs["input_features"].value for item in made.items]), inputs["input_features"]
    )
    assert_close(reference_logits(ours, made), theirs(**inputs).logits[0])


def test_states_that_make_no_whole_rows_are_refused(tmp_path: Path, records: Records) -> None:
    tiny.write(3, tmp_path, tiny.voxtral_config(intermediate_size=80))
    with pytest.raises(
        InvalidConfigError, match="100 states of width 32 make no whole rows of width intermediate_size=80"
    ):
        load_reference(tmp_path, records)


def published(name: str) -> str:
    return name


def half_new(name: str) -> str:
    """Whose tower alone stands under `model`."""
    return f"model.{name}" if name.startswith("audio_tower") else name


@pytest.mark.parametrize("spelling", [published, tiny.under_model, half_new], ids=lambda f: f.__name__)
def test_every_spelling_of_the_names_loads(folder: Path, tmp_path: Path, records: Records, spelling: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    assert "language_model.model.norm.weight" in weights
    save_file({spelling(name): tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    ours, expected = load_reference(tmp_path, records), load_reference(folder, records)
    for (name, a), (_, b) in zip(ours.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_published_shape_has_as_many_parameters_as_hf(records: Records) -> None:
    from transformers import VoxtralConfig
    from transformers import VoxtralForConditionalGeneration as Theirs

    from sdk import ModelContext
    from sdk.testing.reference import resolver_for

    config = VoxtralConfig()
    with torch.device("meta"):
        ours = VoxtralForConditionalGeneration(ctx=ModelContext(hf_config=config, resolver=resolver_for(records)))
        theirs = Theirs(config)
    key_biases = 32 * 1280  # ours are there, and zero
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) + key_biases
    assert rows_per_window(config.audio_config) == 375


def test_windows_of_hf_are_those_of_the_feature_extractor(hf_processor: Any) -> None:
    """What the published checkpoints' extractor says is what transformers' processor has written in it."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=128)
    said = hf_processor.audio_kwargs
    assert (extractor.n_samples, extractor.nb_max_frames) == (said["pad_to_multiple_of"], said["max_source_positions"])
    assert KWARGS.keys() <= said.keys()


def test_the_plugin_module_loads_no_torch() -> None:
    code = "import sys, engine_plugin_voxtral.plugin as p; p.engine_architectures(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

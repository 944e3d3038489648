"""Encoder and decoder by themselves, against transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_whisper import tiny
from engine_plugin_whisper.encoder import WhisperEncoder
from engine_plugin_whisper.model import WhisperForConditionalGeneration
from safetensors.torch import load_file, save_file

from sdk import Architecture, ModelContext
from sdk.testing.reference import assert_close, load_hf, load_reference
from sdk.testing.tiny import save_tiny

Records = list[Architecture]
SHAPES = {
    "tiny": (384, 4, 4, 6, 80, 51865),
    "tiny.en": (384, 4, 4, 6, 80, 51864),
    "base": (512, 6, 6, 8, 80, 51865),
    "base.en": (512, 6, 6, 8, 80, 51864),
    "small": (768, 12, 12, 12, 80, 51865),
    "small.en": (768, 12, 12, 12, 80, 51864),
    "medium": (1024, 24, 24, 16, 80, 51865),
    "medium.en": (1024, 24, 24, 16, 80, 51864),
    "large": (1280, 32, 32, 20, 80, 51865),
    "large-v2": (1280, 32, 32, 20, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866),
    "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
}
"""Width, encoder and decoder layers, heads, mel bins, vocabulary of what was published."""


def features(items: int = 3, mels: int = 80) -> torch.Tensor:
    """Anything of the shape of log-mel clips."""
    return torch.randn(items, mels, 2 * tiny.POSITIONS, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits(model: Any, heard: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Of our model, at every position of the decoder's tokens."""
    tokens = torch.tensor(ids)
    made: torch.Tensor = model.compute_logits(model(tokens, torch.arange(len(ids)), encoder_states=heard))
    return made


@torch.inference_mode()
def test_encoder_states_equal_hf(folder: Path, hf: Any, records: Records) -> None:
    assert_close(
        load_reference(folder, records).encode(features()), hf.get_encoder()(features()).last_hidden_state, 1e-5
    )


@torch.inference_mode()
def test_logits_under_forced_decoding_equal_hf(folder: Path, hf: Any, records: Records) -> None:
    ours = load_reference(folder, records)
    ids = torch.randint(0, hf.config.vocab_size, (3, 200), generator=torch.Generator().manual_seed(1))
    theirs = hf(input_features=features(), decoder_input_ids=ids).logits
    for i, states in enumerate(ours.encode(features())):
        assert_close(logits(ours, states, ids[i].tolist()), theirs[i])


@pytest.mark.parametrize(
    "change",
    [
        {"scale_embedding": True},
        {"num_mel_bins": 128},
        {"activation_function": "relu"},
        {"decoder_layers": 1, "encoder_layers": 3},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
@torch.inference_mode()
def test_other_configs_equal_hf(tmp_path: Path, records: Records, change: dict[str, Any]) -> None:
    from transformers import WhisperForConditionalGeneration as Theirs

    config = tiny.whisper_config(tiny.whisper_tokenizer(), **change)
    save_tiny(Theirs(config), tmp_path, seed=1)
    ours, theirs, x = load_reference(tmp_path, records), load_hf(tmp_path), features(1, config.num_mel_bins)
    ids = list(range(40))
    expected = theirs(input_features=x, decoder_input_ids=torch.tensor([ids])).logits[0]
    assert_close(logits(ours, ours.encode(x)[0], ids), expected)


@pytest.mark.parametrize("head", [True, False], ids=["with proj_out", "without"])
@pytest.mark.parametrize("prefix", ["model.", ""], ids=["under model", "bare"])
def test_every_spelling_of_the_names_loads(
    folder: Path, tmp_path: Path, records: Records, prefix: str, head: bool
) -> None:
    weights = {name.replace("model.", prefix, 1): t for name, t in load_file(folder / "model.safetensors").items()}
    weights.pop("proj_out.weight", None)
    if head:
        weights["proj_out.weight"] = weights[f"{prefix}decoder.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    ours, expected = load_reference(tmp_path, records), load_reference(folder, records)
    for (name, a), (_, b) in zip(ours.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", SHAPES)
def test_every_published_shape_has_as_many_parameters_as_hf(name: str) -> None:
    from transformers import WhisperConfig
    from transformers import WhisperForConditionalGeneration as Theirs

    width, encoder_layers, decoder_layers, heads, mels, vocab = SHAPES[name]
    config = WhisperConfig(
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=mels,
        vocab_size=vocab,
    )
    with torch.device("meta"):
        ours, theirs = WhisperForConditionalGeneration(ctx=ModelContext(hf_config=config)), Theirs(config)
    key_biases = width * (encoder_layers + 2 * decoder_layers)  # ours are there, and zero
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) + key_biases


def test_the_encoder_computes_no_layer_after_the_last_that_is_asked_for(folder: Path, records: Records) -> None:
    encoder = load_reference(folder, records).encoder
    ran: list[int] = []
    for i, layer in enumerate(encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    first, embedding = encoder(features(), layers=[1, 0])
    assert ran == [0]
    assert first.shape == embedding.shape == (3, tiny.POSITIONS, 32)
    with pytest.raises(ValueError, match="states are -3 to 2; asked for 3"):
        encoder(features(), layers=[3])


def test_a_clip_of_another_length_is_refused_by_the_encoder(folder: Path, records: Records) -> None:
    with pytest.raises(ValueError, match="clips of 200 frames, not 100"):
        load_reference(folder, records).encode(features()[..., :100])


@torch.inference_mode()
def test_the_encoder_is_built_by_others_under_either_name(tmp_path: Path, records: Records) -> None:
    """Voxtral's is Whisper's."""
    from transformers import VoxtralEncoderConfig
    from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder

    from sdk.testing.reference import fill, read_safetensors, resolver_for

    config = VoxtralEncoderConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_mel_bins=16,
        max_source_positions=50,
    )  # fmt: skip
    save_tiny(VoxtralEncoder(config), tmp_path, seed=2)
    ctx = ModelContext(hf_config=config, resolver=resolver_for(records))
    ours = ctx.build(config, role="audio-encoder")
    assert isinstance(ours, WhisperEncoder)
    fill(ours, read_safetensors(tmp_path))
    theirs = VoxtralEncoder.from_pretrained(tmp_path, attn_implementation="eager").eval()
    x = torch.randn(2, 16, 100, generator=torch.Generator().manual_seed(0))
    assert_close(ours(x), theirs(x).last_hidden_state, 1e-5)


def test_the_plugin_module_loads_no_torch() -> None:
    code = "import sys, engine_plugin_whisper.plugin as p; p.engine_architectures(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

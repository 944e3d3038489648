"""Checkpoints with seeded random weights, in the shapes that the cases are defined on."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from sdk.testing.tiny import tiny_tokenizer

LARGE = {
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "head_dim": 64,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
TINY = LARGE | {
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.to(torch.bfloat16).eval().save_pretrained(folder)


def _llama(folder: Path, shape: dict[str, int]) -> None:
    _save(LlamaForCausalLM(LlamaConfig(**shape)), folder)
    tiny_tokenizer().save_pretrained(folder)


def _llava(folder: Path) -> None:
    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    vision = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(**(LARGE | {"num_hidden_layers": 12}))
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    _save(
        LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_id, image_seq_length=576)
        ),
        folder,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    images.save_pretrained(folder)


def _whisper(folder: Path) -> None:
    """The shape of whisper-small. Its tokenizer knows few of its ids: prompts are ids, and what is written is not read."""
    from engine_plugin_whisper.tiny import whisper_tokenizer

    end, start = 50257, 50258
    config = WhisperConfig(
        vocab_size=51865, d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, decoder_start_token_id=start,
        pad_token_id=end, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    _save(WhisperForConditionalGeneration(config), folder)
    features = WhisperFeatureExtractor(feature_size=80)
    WhisperProcessor(features, whisper_tokenizer(seconds=30)).save_pretrained(folder)
    features.save_pretrained(folder)


MAKERS = {
    "llama-0.5b": lambda f: _llama(f, LARGE),
    "llama-tiny": lambda f: _llama(f, TINY),
    "llava-small": _llava,
    "whisper-small": _whisper,
}


def model_folder(root: Path, name: str) -> Path:
    """The folder of a checkpoint, made if it is not there yet."""
    folder = root / name
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        MAKERS[name](folder)
    return folder

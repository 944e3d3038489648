"""A small random checkpoint in HF layout, made offline: what the conformance kit compares with transformers."""

from __future__ import annotations

import re
from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer

SIDE, PATCH = 32, 8
PINPOINTS = [[32, 64], [64, 64], [96, 32]]


def under_model(name: str) -> str:
    """Names that transformers 4.52 and later write: everything but the head under `model`."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + re.sub(r"^language_model\.model\.", "language_model.", name)


@also_spelled(under_model=under_model)
def make(seed: int, folder: Path) -> None:
    """Write it: up to four tiles of 16 patches, and a language model of two layers."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    model = LlavaNextForConditionalGeneration(config)
    save_tiny(model, folder, seed=seed, processor=processor, architecture="SoundForConditionalGeneration")

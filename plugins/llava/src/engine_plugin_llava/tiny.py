"""A small random LLaVA checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

import re
from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer


def published(name: str) -> str:
    """Names of the published LLaVA 1.5 checkpoints, whose tower stands in a `vision_model`."""
    return re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name)


def under_model(name: str) -> str:
    """Names that transformers 4.52 and later write: everything but the head under `model`."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + re.sub(r"^language_model\.model\.", "language_model.", name)


@also_spelled(published=published, under_model=under_model)
def llava(seed: int, folder: Path) -> None:
    """Llama under CLIP: two layers each, pictures of 32 by 32 pixels in 16 patches."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    save_tiny(LlavaForConditionalGeneration(config), folder, seed=seed, processor=processor)

"""Small random checkpoints, made offline: what `engine plugins verify` compares with HF, and the same over other towers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sdk.testing.tiny import CHAT_TEMPLATE, also_spelled, save_tiny, tiny_tokenizer

PATCH, SIDE = 8, 32
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
"""Of LLaVA-NeXT: as many tiles as the published checkpoints have, of 16 patches each."""


def published(name: str) -> str:
    """Names of the published LLaVA checkpoints, whose tower stands in a `vision_model`."""
    return re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name)


def under_model(name: str) -> str:
    """Names that transformers 4.52 and later write: everything but the head under `model`."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + re.sub(r"^language_model\.model\.", "language_model.", name)


def clip_config() -> Any:
    """Three layers over pictures of 32 by 32 pixels in 16 patches."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )


def llama_config(tokenizer: Any, max_position_embeddings: int = 512) -> Any:
    """Llama of two layers."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_position_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@also_spelled(published=published, under_model=under_model)
def llava(seed: int, folder: Path) -> None:
    """LLaVA 1.5: Llama over CLIP."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    config = LlavaConfig(
        vision_config=clip_config(),
        text_config=llama_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    save_tiny(LlavaForConditionalGeneration(config), folder, seed=seed, processor=processor)


@also_spelled(published=published, under_model=under_model)
def llava_next(seed: int, folder: Path) -> None:
    """LLaVA-NeXT: Llama over CLIP, and up to four tiles a picture."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    config = LlavaNextConfig(
        vision_config=clip_config(),
        text_config=llama_config(tokenizer, 1024),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    save_tiny(LlavaNextForConditionalGeneration(config), folder, seed=seed, processor=processor)


def llava_over_siglip(seed: int, folder: Path) -> None:
    """LLaVA over SigLIP, which has no class token: every feature is kept."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        SiglipImageProcessorPil,
        SiglipVisionConfig,
    )

    tokenizer = tiny_tokenizer(special_tokens=("<image>",))
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=llama_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )
    save_tiny(LlavaForConditionalGeneration(config), folder, seed=seed, processor=processor)


@also_spelled(under_model=under_model)
def llava_over_pixtral(seed: int, folder: Path) -> None:
    """LLaVA over Pixtral's tower: pictures of up to 64 pixels a side, in their own shape."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        PixtralImageProcessorPil,
        PixtralVisionConfig,
    )

    names = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    template = CHAT_TEMPLATE.replace("'<' + part['type'] + '>\n'", "'[IMG]'")
    tokenizer = tiny_tokenizer(special_tokens=tuple(names.values()), chat_template=template)
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=2 * SIDE,
            patch_size=PATCH,
        ),
        text_config=llama_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
    )
    images = PixtralImageProcessorPil(
        size={"longest_edge": 2 * SIDE},
        patch_size={"height": PATCH, "width": PATCH},
        processor_class="PixtralProcessor",
    )
    save_tiny(LlavaForConditionalGeneration(config), folder, seed=seed, tokenizer=tokenizer)
    images.save_pretrained(folder)
    # transformers' PixtralProcessor would write this, and cannot be made where torchvision is not installed.
    said = {"processor_class": "PixtralProcessor", "patch_size": PATCH, "spatial_merge_size": 1, **names}
    (folder / "processor_config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

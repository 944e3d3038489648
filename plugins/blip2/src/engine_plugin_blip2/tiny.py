"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdk.testing.tiny import CHAT_TEMPLATE, save_tiny, tiny_tokenizer

SIDE, QUERIES = 32, 5
GAINS = {"embed_positions": 32.0}
"""Without, greedy answers come to the same few tokens again and again."""
TEMPLATE = CHAT_TEMPLATE.replace("'<' + part['type'] + '>\n'", "''")
"""Nothing stands for a picture in a message."""


def config(tokenizer: Any, **text: Any) -> Any:
    """A tower of two layers over 16 patches, a Q-Former of three of which two see, and OPT of two."""
    from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

    vision = Blip2VisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
    )
    queries = Blip2QFormerConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        cross_attention_frequency=2,
        vocab_size=32,
    )
    language = OPTConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "ffn_dim": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
            **text,
        }
    )
    return Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=queries.to_dict(),
        text_config=language.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


def blip2(seed: int, folder: Path) -> None:
    """BLIP-2 over OPT."""
    from transformers import Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil

    tokenizer = tiny_tokenizer(special_tokens=("<image>",), chat_template=TEMPLATE)
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(pictures, tokenizer, num_query_tokens=QUERIES)
    model = Blip2ForConditionalGeneration(config(tokenizer))
    save_tiny(model, folder, seed=seed, processor=processor, gains=GAINS)

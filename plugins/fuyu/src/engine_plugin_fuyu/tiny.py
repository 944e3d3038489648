"""Small random checkpoints, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdk.testing.tiny import LINES, also_spelled, save_tiny, tiny_tokenizer

BEFORE_TEXT = "|ENDOFTEXT|"
RESERVED = ("<unk>", "<s>", "</s>", BEFORE_TEXT, "|SPEAKER|", "|NEWLINE|")
"""Ids 0 to 5; the bytes follow them, so that `<0x04>` is one of the pieces."""


def _config(vocab_size: int) -> Any:
    from transformers import PersimmonConfig

    return PersimmonConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )


def persimmon(seed: int, folder: Path) -> None:
    """Persimmon with rotary positions in half of each head."""
    from transformers import PersimmonForCausalLM

    tokenizer = tiny_tokenizer()
    save_tiny(PersimmonForCausalLM(_config(len(tokenizer))), folder, seed=seed, tokenizer=tokenizer)


def fuyu_tokenizer(lines: Iterable[str] = LINES) -> Any:
    """A tokenizer of the kind that Fuyu has: it puts `▁` before every text, and the tokens that stand for pictures are pieces
    of its vocabulary like words, not added tokens.

    Args:
        lines: Every word in them is a piece; all others are spelled.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    reserved = [*RESERVED, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = sorted({f"▁{word}" for line in lines for word in re.findall(r"[A-Za-z]+", line)})
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    # The likelier reading of a text has the higher sum: reserved pieces before words, words before letters.
    scores = [*((piece, 0.0) for piece in reserved), *((w, -5.0) for w in words), *((c, -10.0) for c in letters)]
    unigram = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    unigram.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    unigram.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    unigram.post_processor = processors.TemplateProcessing(
        single=f"{BEFORE_TEXT} $A",
        pair=f"{BEFORE_TEXT} $A $B",
        special_tokens=[(BEFORE_TEXT, RESERVED.index(BEFORE_TEXT))],
    )
    unigram.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in RESERVED[:4]])
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram, unk_token="<unk>", bos_token=BEFORE_TEXT, eos_token=BEFORE_TEXT, pad_token="<unk>"
    )


def inner_model(name: str) -> str:
    """Names of the published checkpoints, and of transformers before 4.52."""
    return re.sub(r"^language_model\.(?!model\.|lm_head\.)", "language_model.model.", name)


def under_model(name: str) -> str:
    """Names of transformers 4.52 and later: everything but the head under `model`."""
    name = name.replace("language_model.model.", "language_model.", 1)
    return name.removeprefix("language_model.") if ".lm_head." in name else f"model.{name}"


@also_spelled(inner_model=inner_model, under_model=under_model)
def fuyu(seed: int, folder: Path) -> None:
    """Persimmon that reads pictures of up to 64 by 48 pixels in patches of 8 by 8."""
    from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessorPil, FuyuProcessor

    tokenizer = fuyu_tokenizer()
    config = FuyuConfig(
        text_config=_config(len(tokenizer)), patch_size=8, image_token_id=tokenizer.convert_tokens_to_ids("|SPEAKER|")
    )
    images = FuyuImageProcessorPil(
        size={"height": 48, "width": 64}, patch_size={"height": 8, "width": 8}, do_convert_rgb=True
    )
    save_tiny(FuyuForCausalLM(config), folder, seed=seed, processor=FuyuProcessor(images, tokenizer))

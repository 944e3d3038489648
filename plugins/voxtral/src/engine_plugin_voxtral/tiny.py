"""A small random checkpoint, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdk.testing.tiny import LINES, also_spelled, save_tiny

from .tekken import BYTE_CHARACTERS, TEKKEN_FILE

WINDOW_SECONDS = 2
RATE = 16_000
STATES = 50 * WINDOW_SECONDS
"""Of the encoder, one for every 20 ms; four of them become a row."""
SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", *(f"<SPECIAL_{i}>" for i in range(20, 24))),
    *("[AUDIO]", "[BEGIN_AUDIO]", *(f"<SPECIAL_{i}>" for i in range(26, 32)), "[ARGS]", "[CALL_ID]", "[TRANSCRIBE]"),
)
"""Where transformers looks for them: its processor knows the audio token by its id, 24."""
NUM_SPECIAL = 40
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How a text is cut before its bytes are merged: words, single digits, signs, blanks."""


def write_tekken(
    folder: Path, *, vocab_size: int = 360, seconds: float = WINDOW_SECONDS, lines: Sequence[str] = LINES
) -> None:
    """Write a `tekken.json` of so many ids, special ones among them.

    Args:
        folder: Where to.
        vocab_size: Ids.
        seconds: Of a window.
        lines: What it learns its merges from.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    count = vocab_size - NUM_SPECIAL
    alphabet = sorted(BYTE_CHARACTERS)
    bpe.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=count, initial_alphabet=alphabet, show_progress=False)
    )
    merged = [left + right for left, right in json.loads(bpe.to_str())["model"]["merges"]]
    byte = {character: value for value, character in enumerate(BYTE_CHARACTERS)}
    pieces = [bytes([i]) for i in range(256)] + [bytes(byte[c] for c in token) for token in merged]
    if len(pieces) != count:
        raise ValueError(f"the lines give {len(pieces)} pieces, not {count}")
    said = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": count,
            "default_vocab_size": vocab_size,
            "default_num_special_tokens": NUM_SPECIAL,
            "version": "v11",
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(piece).decode(), "token_str": _text(piece)}
            for i, piece in enumerate(pieces)
        ],
        "special_tokens": [{"rank": i, "token_str": token, "is_control": True} for i, token in enumerate(SPECIAL)],
        "audio": {
            "sampling_rate": RATE,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 80, "hop_length": 160, "window_size": 400},
            "chunk_length_s": float(seconds),
        },
    }
    (folder / TEKKEN_FILE).write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None


def voxtral_config(text_config: Any = None, vocab_size: int = 360, **audio: Any) -> Any:
    """Whisper's encoder of two layers under a language model, Llama of two layers unless another is given."""
    from transformers import LlamaConfig, VoxtralConfig, VoxtralEncoderConfig

    values: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_mel_bins": 80,
        "max_source_positions": STATES,
    }
    llama = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=11,
    )
    return VoxtralConfig(
        audio_config=VoxtralEncoderConfig(**{**values, **audio}),
        text_config=llama if text_config is None else text_config,
        audio_token_id=SPECIAL.index("[AUDIO]"),
    )


def write(seed: int, folder: Path, config: Any) -> None:
    """Write a checkpoint of this config."""
    from transformers import VoxtralForConditionalGeneration, WhisperFeatureExtractor

    folder.mkdir(parents=True, exist_ok=True)
    audio, seconds = config.audio_config, config.audio_config.max_source_positions // 50
    write_tekken(folder, vocab_size=config.text_config.vocab_size, seconds=seconds)
    WhisperFeatureExtractor(feature_size=audio.num_mel_bins, chunk_length=seconds).save_pretrained(folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    save_tiny(VoxtralForConditionalGeneration(config), folder, seed=seed, generation_config=ids)


def under_model(name: str) -> str:
    """Names that transformers 5.4 and later write: everything but the head under `model`."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + re.sub(r"^language_model\.model\.", "language_model.", name)


@also_spelled(under_model=under_model)
def voxtral(seed: int, folder: Path) -> None:
    """Voxtral over windows of two seconds."""
    write(seed, folder, voxtral_config())

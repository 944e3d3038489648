"""Small random checkpoints, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdk.testing.tiny import LINES, also_spelled, save_tiny

CHUNK_SECONDS = 2
POSITIONS = 50 * CHUNK_SECONDS
"""States of the encoder: one for every 20 ms."""
LANGUAGES = ("en", "zh", "de", "es")
GAINS = {"decoder.embed_positions": 8.0, "encoder_attn.out_proj": 1.0}
"""What is heard is the same at every token, and would leave nothing else to be said."""
END = "<|endoftext|>"
TASKS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def whisper_tokenizer(
    lines: Sequence[str] = LINES,
    *,
    vocab_size: int = 300,
    languages: Sequence[str] = LANGUAGES,
    seconds: float = CHUNK_SECONDS,
) -> Any:
    """A tokenizer of Whisper's form: byte-level pieces of text, then the special tokens in their order, then the time stamps.

    Args:
        lines: What it learns its merges from.
        vocab_size: Pieces of text.
        languages: Codes.
        seconds: The last time stamp.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import WhisperTokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(lines, trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise ValueError(f"the lines give a vocabulary of {bpe.get_vocab_size()} ids, not {vocab_size}")
    special = [END, "<|startoftranscript|>", *(f"<|{code}|>" for code in languages), *TASKS]
    stamps = [f"<|{0.02 * i:.2f}|>" for i in range(round(50 * seconds) + 1)]
    added = [*(AddedToken(t, normalized=False, special=True) for t in special)]
    added += [AddedToken(t, normalized=False, special=False) for t in stamps]
    bpe.add_tokens(added)
    tokenizer = WhisperTokenizer(tokenizer_object=bpe, additional_special_tokens=special[1:])
    ids = tokenizer.convert_tokens_to_ids([*special, *stamps])
    if ids != list(range(vocab_size, vocab_size + len(ids))):
        raise ValueError("the special tokens and the time stamps do not lie end to end")
    return tokenizer


def whisper_config(tokenizer: Any, **changes: Any) -> Any:
    """A small config whose special ids are the tokenizer's."""
    from transformers import WhisperConfig

    end, start = tokenizer.convert_tokens_to_ids([END, "<|startoftranscript|>"])
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "num_mel_bins": 80,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_layers": 3,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 96,
        "max_source_positions": POSITIONS,
        "max_target_positions": 256,
        "decoder_start_token_id": start,
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    return WhisperConfig(**{**values, **changes})


def generation_entries(tokenizer: Any, languages: Sequence[str] = LANGUAGES) -> dict[str, Any]:
    """What Whisper's generation config says besides the ids of its config."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (END, "<|startoftranscript|>", *TASKS)}
    return {
        "alignment_heads": [[1, 0], [2, 3]],
        "begin_suppress_tokens": [tokenizer.convert_tokens_to_ids("Ġ"), ids[END]],
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in languages},
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": sorted(
            [5, 6, 7, *(ids[t] for t in ("<|startoftranscript|>", *TASKS[:-1])), tokenizer.convert_tokens_to_ids("*")]
        ),
        "task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
    }


def bare(name: str) -> str:
    """Names as `WhisperModel` writes them, which has no head."""
    return name.removeprefix("model.")


@also_spelled(without_model=bare)
def whisper(seed: int, folder: Path) -> None:
    """Whisper over clips of two seconds."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    tokenizer = whisper_tokenizer()
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=CHUNK_SECONDS), tokenizer)
    model = WhisperForConditionalGeneration(whisper_config(tokenizer))
    save_tiny(
        model,
        folder,
        seed=seed,
        processor=processor,
        generation_config={**generation_entries(tokenizer), "_from_model_config": False},
        gains=GAINS,
    )


def encoder(seed: int, folder: Path) -> None:
    """The encoder by itself."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    save_tiny(WhisperEncoder(whisper_config(whisper_tokenizer())), folder, seed=seed)

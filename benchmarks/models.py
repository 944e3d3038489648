"""Checkpoints with seeded random weights, in the shapes that the cases are defined on."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from sdk.testing.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

LARGE = {
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "head_dim": 64,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
TINY = LARGE | {
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def _lines() -> Iterator[str]:
    """Text enough for a large vocabulary, on any machine: the sources of Python's own library."""
    for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py")):
        if source.parent.name != "site-packages":
            yield source.read_text(encoding="utf-8", errors="ignore")


def _tokenizer(size: int, *special: str) -> PreTrainedTokenizerFast:
    """One in which every id of a model is a piece of text: peers make text of what they generate."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_lines(), trainer)
    if bpe.get_vocab_size() != size:
        raise RuntimeError(f"Python's library gives a vocabulary of {bpe.get_vocab_size()} ids, not {size}")
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(special),
        chat_template=CHAT_TEMPLATE,
    )


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.to(torch.bfloat16).eval().save_pretrained(folder)


def _llama(folder: Path, shape: dict[str, int]) -> None:
    _save(LlamaForCausalLM(LlamaConfig(**shape)), folder)
    _tokenizer(shape["vocab_size"]).save_pretrained(folder)


def _llava(folder: Path) -> None:
    tokenizer = _tokenizer(LARGE["vocab_size"], "<image>")
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
    """The shape of whisper-small, with its ids: 50,257 pieces of text, then what is not text."""
    from engine_plugin_whisper.tiny import whisper_tokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:99]]
    tokenizer = whisper_tokenizer(list(_lines()), vocab_size=50257, languages=list(LANGUAGES)[:99], seconds=30)
    end, start, translate, transcribe, previous, silent = tokenizer.convert_tokens_to_ids(
        [
            "<|endoftext|>",
            "<|startoftranscript|>",
            "<|translate|>",
            "<|transcribe|>",
            "<|startofprev|>",
            "<|notimestamps|>",
        ]
    )
    ends = {"decoder_start_token_id": start, "pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, begin_suppress_tokens=[220, end], **ends,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_length=448,
        is_multilingual=True,
        no_timestamps_token_id=silent,
        prev_sot_token_id=previous,
        max_initial_timestamp_index=50,
        begin_suppress_tokens=[220, end],
        lang_to_id=dict(zip(languages, tokenizer.convert_tokens_to_ids(languages))),
        task_to_id={"transcribe": transcribe, "translate": translate},
        alignment_heads=[[11, 0]],
        **ends,
    )
    _save(model, folder)
    features = WhisperFeatureExtractor(feature_size=80)
    WhisperProcessor(features, tokenizer).save_pretrained(folder)
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

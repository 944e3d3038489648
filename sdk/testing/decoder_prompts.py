"""Prompts of tokens alone, as the engine, the model by itself and transformers take them.

An encoder-decoder model says nothing without something to attend over, so it gets an item beside the tokens, always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .samples import Sample

if TYPE_CHECKING:
    from ..multimodal.processor import ProcessedPrompt
    from .runtime import Prompt
    from .subject import Subject


def beside(subject: Subject) -> dict[str, list[Any]]:
    """The media that stand beside every prompt, made anew."""
    modality = subject.encoder_modality
    return {} if modality is None else subject.data_of(Sample(("", ""), (0,), modality))


def tokenize(subject: Subject, text: str) -> list[int]:
    """The ids of a text, as HF has them; those of a decoder's prompt without special tokens, unless it would be empty."""
    if subject.encoder_modality is None:
        return list(subject.tokenizer(text)["input_ids"])
    ids = list(subject.tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids or [subject.config.decoder_start_token_id]


def for_engine(subject: Subject, prompt: str | Sequence[int]) -> Prompt:
    """A text, or ids, as the engine takes them."""
    if subject.encoder_modality is None:
        return prompt
    name = "prompt" if isinstance(prompt, str) else "prompt_token_ids"
    return {name: prompt, "multi_modal_data": beside(subject)}


def for_reference(subject: Subject, ids: Sequence[int]) -> Sequence[int] | ProcessedPrompt:
    """Ids as `reference_logits` takes them."""
    return ids if subject.encoder_modality is None else subject.processor.apply(ids, beside(subject))


def for_hf(subject: Subject, ids: Sequence[int]) -> dict[str, Any]:
    """Ids as transformers' model takes them."""
    if subject.encoder_modality is None:
        import torch

        return {"input_ids": torch.tensor([list(ids)])}
    made = subject.hf_inputs(Sample(("", ""), (0,), subject.encoder_modality))
    return {**made, **decoder_inputs(ids)}


def decoder_inputs(ids: Sequence[int]) -> dict[str, Any]:
    """The decoder's ids, as transformers' encoder-decoder models take them."""
    import torch

    return {"decoder_input_ids": torch.tensor([list(ids)])}

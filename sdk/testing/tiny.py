"""Small random checkpoints, made offline on any machine: what a plugin's `tiny` function is written with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

TinyFunction = TypeVar("TinyFunction", bound=Callable[[int, Path], None])
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
"""Ids 0 to 3 of every tiny tokenizer."""
ORACLE = "oracle_architecture"
"""In a tiny checkpoint's config.json: the class of transformers that it was made with, where `architectures` names another."""

LINES = (
    "USER: What is shown in the picture? ASSISTANT: The picture shows a red circle and a blue square.",
    "USER: How many shapes are there? ASSISTANT: There are three shapes in the picture.",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "A small model is a good test: it is fast, it is fixed, and it says the same thing on each machine.",
    "Der schnelle braune Fuchs; le renard brun; el zorro marrón; 快速的棕色狐狸; 0123456789.",
)
"""What tiny tokenizers learn their merges from."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<' + part['type'] + '>\n' }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""`ROLE: content`, a line each; a medium stands as its name in angle brackets, before a line break."""


def tiny_tokenizer(
    *, vocab_size: int = 320, special_tokens: tuple[str, ...] = (), chat_template: str = CHAT_TEMPLATE
) -> Any:
    """A byte-level BPE tokenizer that encodes any text and puts `<s>` before it.

    Args:
        vocab_size: Number of ids, all of them used.
        special_tokens: Further special tokens, e.g. `("<image>",)`; their ids follow those of `SPECIAL_TOKENS`.
        chat_template: The jinja template it carries.

    Returns:
        A `PreTrainedTokenizerFast`, the same on every machine.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(LINES, trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise ValueError(f"the fixed lines give a vocabulary of {bpe.get_vocab_size()} ids, not {vocab_size}")
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(special_tokens),
        chat_template=chat_template,
    )


@torch.no_grad()
def randomize(
    model: nn.Module,
    seed: int,
    *,
    gain: float = 1.5,
    gains: Mapping[str, float] | None = None,
    means: Mapping[str, float] | None = None,
) -> None:
    """Give every parameter a seeded random value, whatever the library's own initialisation does.

    Matrices and filters are normal with standard deviation `gain / sqrt(fan in)`, vectors with 0.1; the weights of
    norms are 1 with a deviation of 0.1. So no bias is zero, no norm is the identity, and greedy tokens vary; where they
    do not, `gains` gives parameters with a part of a name a gain of their own. `means` says in the same way around what
    vectors lie: a recurrence whose step sizes are large forgets at once, and nothing can be told from its states.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            # Experts are stacked matrices, so that only the last dimension is what goes in.
            fan_in = parameter.shape[-1] if ".experts." in name else parameter[0].numel()
            own = next((g for part, g in (gains or {}).items() if part in name), gain)
            parameter.copy_(noise * own / math.sqrt(fan_in))
        else:
            usual = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            mean = next((m for part, m in (means or {}).items() if part in name), usual)
            parameter.copy_(mean + 0.1 * noise)


def save_tiny(
    model: Any,
    folder: Path,
    *,
    seed: int,
    tokenizer: Any = None,
    processor: Any = None,
    generation_config: dict[str, Any] | None = None,
    architecture: str | None = None,
    gains: Mapping[str, float] | None = None,
    means: Mapping[str, float] | None = None,
) -> None:
    """Randomise an HF model and write it as a checkpoint folder, in float32, the way HF itself writes one.

    Args:
        model: An HF `PreTrainedModel`.
        folder: Where to; made if need be.
        seed: Fixes every weight.
        tokenizer: Saved beside it.
        processor: Saved beside it, for a model that takes media; brings its own tokenizer.
        generation_config: Entries that replace those HF derives from the config.
        architecture: What config.json shall name, where it is not the HF class; that class is noted beside it, and stays
            what the kit compares with.
        gains: See `randomize`.
        means: See `randomize`.
    """
    randomize(model, seed, gains=gains, means=means)
    model.eval().save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    if architecture is not None:
        path = folder / "config.json"
        named = {"architectures": [architecture], ORACLE: type(model).__name__}
        path.write_text(json.dumps({**json.loads(path.read_text()), **named}, indent=2) + "\n")
    if generation_config is not None:
        path = folder / "generation_config.json"
        values = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**values, **generation_config}, indent=2) + "\n")


def also_spelled(**spellings: Callable[[str], str]) -> Callable[[TinyFunction], TinyFunction]:
    """Say in which other ways published checkpoints spell the tensors' names; `verify` loads the tiny one in each.

    Args:
        **spellings: What to call the spelling → function from a name, as `save_tiny` writes it, to the other name.

    Example:
        >>> @also_spelled(before_4_52=lambda name: name.removeprefix("model."))
        ... def tiny(seed: int, folder: Path) -> None: ...
    """

    def mark(function: TinyFunction) -> TinyFunction:
        function.spellings = spellings  # type: ignore[attr-defined]
        return function

    return mark

"""`tekken.json`, the only tokenizer that published checkpoints come with, as an HF tokenizer.

Byte-level BPE as in tiktoken: a list of byte strings whose place is their rank; of all neighbours whose bytes together are
in the list, those of the lowest rank are merged first. Special tokens have the first ids and no bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

TEKKEN_FILE: Final = "tekken.json"
TEMPLATE_FILE: Final = "chat_template.jinja"


def _byte_characters() -> list[str]:
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


BYTE_CHARACTERS: Final[Sequence[str]] = _byte_characters()
"""Byte → the character that byte-level tokenizers write for it: itself where it can be seen, else the next from 256 on."""


def load_tokenizer(source: str) -> Any:
    """The HF tokenizer of a checkpoint: from `tekken.json` where there is one, else as transformers finds it.

    Args:
        source: A checkpoint's folder, a `tekken.json`, or whatever `AutoTokenizer` takes.
    """
    from transformers import AutoTokenizer

    path = Path(source)
    path = path if path.is_file() else path / TEKKEN_FILE
    if not path.is_file():
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    own = path.with_name(TEMPLATE_FILE)
    template = own if own.is_file() else Path(__file__).with_name(TEMPLATE_FILE)
    return tekken_tokenizer(path, chat_template=template.read_text(encoding="utf-8"))


def tekken_tokenizer(path: Path, *, chat_template: str | None = None) -> Any:
    """Read a `tekken.json`.

    Args:
        path: The file.
        chat_template: The Jinja template it shall carry.

    Returns:
        A `PreTrainedTokenizerFast` that puts `<s>` before a text.

    Raises:
        ValueError: It is no such file, or one of before there were clips.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    said = json.loads(path.read_text(encoding="utf-8"))
    special = _special_tokens(said, path)
    count = said["config"]["default_vocab_size"] - len(special)
    pieces = [base64.b64decode(entry["token_bytes"]) for entry in said["vocab"][:count]]
    spelt = ["".join(BYTE_CHARACTERS[byte] for byte in piece) for piece in pieces]
    if len(set(spelt)) != count:
        raise ValueError(f"{path} lists {len(set(spelt))} different tokens, not {count}")
    vocab = {token: i for i, token in enumerate(chain(special, spelt))}
    bpe = Tokenizer(models.BPE(vocab, list(_merges(spelt)), fuse_unk=False, ignore_merges=True))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(said["config"]["pattern"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=special,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def _special_tokens(said: Mapping[str, Any], path: Path) -> list[str]:
    """Their strings in the order of their ids; those without a name are numbered."""
    named = {entry["rank"]: entry["token_str"] for entry in said.get("special_tokens") or ()}
    wanted = {"<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]"}
    missing = sorted(wanted - set(named.values()))
    if missing:
        raise ValueError(f"{path} has no special tokens {', '.join(missing)}: it is of a model that takes no clips")
    count = int(said["config"]["default_num_special_tokens"])
    special = [named.get(i, f"<SPECIAL_{i}>") for i in range(count)]
    if max(named) >= count or len(set(special)) != count:
        raise ValueError(f"the special tokens of {path} do not have the ids 0 to {count - 1}, each one")
    return special


def _merges(spelt: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every pair of tokens that make a token, by the rank of what they make."""
    ranks = {token: rank for rank, token in enumerate(spelt)}
    for token in spelt:
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


__all__ = ["BYTE_CHARACTERS", "TEKKEN_FILE", "load_tokenizer", "tekken_tokenizer"]

"""Parity of a text model with transformers in one line: what an author's own tests ask first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..spec import Architecture
from .reference import assert_close, load_hf, load_reference, reference_logits

FIRST_ORDINARY_TOKEN = 4
"""Tiny checkpoints keep the ids below for special tokens."""


def random_prompt(vocab_size: int, length: int) -> list[int]:
    """So many token ids, none of them special; the same for the same length."""
    draws = torch.Generator().manual_seed(length)
    return torch.randint(FIRST_ORDINARY_TOKEN, vocab_size, (length,), generator=draws).tolist()


def assert_equals_hf(folder: Path, records: Sequence[Architecture], *lengths: int) -> None:
    """Assert that a checkpoint gives the logits that transformers gives, at every position of random prompts.

    Args:
        folder: The checkpoint.
        records: The records of the plugins it needs.
        lengths: Of the prompts.

    Raises:
        AssertionError: They differ; it says where the most.
    """
    ours, theirs = load_reference(folder, records), load_hf(folder)
    for length in lengths:
        ids = random_prompt(theirs.config.get_text_config().vocab_size, length)
        with torch.inference_mode():
            expected = theirs(torch.tensor([ids])).logits[0]
        assert_close(reference_logits(ours, ids), expected)

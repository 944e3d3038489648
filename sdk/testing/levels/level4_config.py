"""Level 4, the config: a number that a checkpoint may have otherwise is read, and not written down in the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ...layers.activation import ACTIVATIONS
from ..decoder_prompts import for_hf, for_reference
from ..law import Broken, law
from ..oracle import answering
from ..samples import random_ids
from .level4_parity import LONG, distances

if TYPE_CHECKING:
    from torch import Tensor

    from ..subject import Subject

NUMBERS = ("rope_theta", "sliding_window", "query_pre_attn_scalar")
"""Whole numbers that are no sizes of anything."""


class Entry(NamedTuple):
    """One entry of a config.

    Attributes:
        path: The keys that lead to it.
        value: Another value than the checkpoint's.
    """

    path: tuple[str, ...]
    value: Any

    def put(self, config: Any) -> Any:
        """A copy of a config with this value in it."""
        changed = copy.deepcopy(config)
        holder = changed
        for key in self.path[:-1]:
            holder = holder[key] if isinstance(holder, dict) else getattr(holder, key)
        if isinstance(holder, dict):
            holder[self.path[-1]] = self.value
        else:
            setattr(holder, self.path[-1], self.value)
        return changed

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}={self.value!r}"


def entries(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Entry]:
    """What may be changed in a config without another shape of any weight: factors, epsilons, bases, activations."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from entries(value, (*path, key))
        elif isinstance(value, str) and value in ACTIVATIONS:
            yield Entry((*path, key), "silu" if "gelu" in value else "gelu")
        elif isinstance(value, float) and "eps" in key:
            yield Entry((*path, key), 0.05)
        elif (isinstance(value, float) or (isinstance(value, int) and key in NUMBERS)) and value:
            yield Entry((*path, key), type(value)(value * 1.25 + (value >= 100)))


@law(
    "L4.config",
    "With other numbers in the config, the model by itself still gives transformers' logits.",
    needs=("L4.logits-reference",),
)
def config(subject: Subject) -> str:
    ids = random_ids(subject, min(LONG, subject.seq_len), seed=LONG)
    usual = _theirs(subject, subject.config, ids)
    counted, refused = [], []
    for entry in entries(subject.config.to_dict()):
        changed = entry.put(subject.config)
        try:
            expected = _theirs(subject, changed, ids)
        except Exception:  # nothing that transformers itself can compute
            continue
        if not distances(expected, usual)[0]:
            continue
        try:
            ours = _ours(subject, changed, ids)
        except Exception as error:  # to refuse what one has not written is sound
            refused.append(f"{entry} ({type(error).__name__})")
            continue
        wrong, what = distances(ours, expected)
        if wrong:
            nowhere = "" if distances(ours, usual)[0] else ", and nothing changes with it"
            raise Broken(
                f"with {entry} in the config, {what}{nowhere}",
                smallest=f"{entry}, and {len(ids)} token ids",
                cause=f"a number written down in the model, or a layer's default, in the place of {entry.path[-1]}: read it from "
                "the config wherever it counts",
            )
        counted.append(".".join(entry.path))
    said = f"{len(counted)} entries that count: {', '.join(counted) or 'none'}"
    return f"{said}; refused: {', '.join(refused)}" if refused else said


def _theirs(subject: Subject, changed: Any, ids: list[int]) -> Tensor:
    """What transformers computes from the tiny checkpoint under another config."""
    import torch

    from ..reference import load_hf

    with torch.inference_mode():
        inputs = for_hf(subject, ids)
        found: Tensor = answering(load_hf(subject.folder, changed), inputs)(**inputs).logits[0]
    return found


def _ours(subject: Subject, changed: Any, ids: list[int]) -> Tensor:
    from ..reference import fill, read_safetensors, reference_logits

    model = subject.build(config=changed)
    fill(model, read_safetensors(subject.folder))
    return reference_logits(model, for_reference(subject, ids))


LAWS = (config,)

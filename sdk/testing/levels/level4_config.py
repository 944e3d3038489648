"""Level 4, the config: a number that a checkpoint may have otherwise is read, and not written down in the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..decoder_prompts import for_hf, for_reference
from ..law import Broken, NotApplicable, law
from ..oracle import answering
from ..samples import all_media_samples, random_ids
from .level4_parity import LONG, distances, items_of_component

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
    from ...layers.activation import ACTIVATIONS

    for key, value in values.items():
        if isinstance(value, dict):
            yield from entries(value, (*path, key))
        elif isinstance(value, str) and value in ACTIVATIONS:
            yield Entry((*path, key), "silu" if "gelu" in value else "gelu")
        elif isinstance(value, float) and "eps" in key:
            yield Entry((*path, key), 0.05)
        elif isinstance(value, float) and value:
            yield Entry((*path, key), value * 1.25)
        elif isinstance(value, int) and key in NUMBERS:
            yield Entry((*path, key), value + max(1, value // 4))


class Case(NamedTuple):
    """Something that both compute, as `(rows, width)`.

    Attributes:
        name: Of the input.
        theirs: From a model of transformers.
        ours: From a model by itself.
    """

    name: str
    theirs: Callable[[Any], Tensor]
    ours: Callable[[Any], Tensor]


def _cases(subject: Subject) -> list[Case]:
    """A text; of a model that takes media, a prompt with an item; of a component, a batch of items."""
    import torch

    from ...pooling import POOLING_TASKS
    from ..reference import reference_logits

    if subject.record.kind == "component":
        x = items_of_component(subject)
        return [
            Case(
                f"a batch {tuple(x.shape)}",
                lambda hf: hf(x).last_hidden_state.flatten(0, -2),
                lambda m: m(x).flatten(0, -2),
            )
        ]
    ids = random_ids(subject, min(LONG, subject.seq_len), seed=LONG)
    name, inputs = f"{len(ids)} token ids", for_hf(subject, ids)
    if set(subject.capabilities.tasks) <= set(POOLING_TASKS):
        tokens, places = torch.tensor(ids), torch.arange(len(ids))
        return [Case(name, lambda hf: hf.base_model(**inputs).last_hidden_state[0], lambda m: m(tokens, places))]
    cases = [
        Case(
            name,
            lambda hf: answering(hf, inputs)(**inputs).logits[0],
            lambda m: reference_logits(m, for_reference(subject, ids)),
        )
    ]
    if subject.plugin.has("processor") and subject.encoder_modality is None:
        sample = next(sample for sample in all_media_samples(subject) if sample.items)
        cases.append(
            Case(
                subject.describe_sample(sample),
                lambda hf: hf(**subject.hf_inputs(sample)).logits[0],
                lambda m: reference_logits(m, subject.processed(sample)),
            )
        )
    return cases


@law(
    "L4.config",
    "With other numbers in the config, the model by itself still computes what transformers computes.",
    needs=("L1.weights",),
)
def config(subject: Subject) -> str:
    cases = _cases(subject)
    usual = [_theirs(subject, subject.config, case) for case in cases]
    if any(distances(_ours(subject, subject.config, case), due)[0] for case, due in zip(cases, usual)):
        raise NotApplicable("not checked: it needs parity under the config as it is")
    counted, refused = [], []
    for entry in entries(subject.config.to_dict()):
        changed = entry.put(subject.config)
        for case, before in zip(cases, usual):
            try:
                expected = _theirs(subject, changed, case)
            except Exception:  # nothing that transformers itself can compute
                continue
            if not distances(expected, before)[0]:
                continue
            try:
                ours = _ours(subject, changed, case)
            except Exception as error:  # to refuse what one has not written is sound
                refused.append(f"{entry} ({type(error).__name__})")
                continue
            wrong, what = distances(ours, expected)
            if wrong:
                nowhere = "" if distances(ours, before)[0] else ", and nothing changes with it"
                raise Broken(
                    f"with {entry} in the config, {what}{nowhere}",
                    smallest=f"{entry}, and {case.name}",
                    cause=f"a number written down in the model, or a layer's default, in the place of {entry.path[-1]}: read "
                    "it from the config wherever it counts",
                )
            counted.append(".".join(entry.path))
    said = f"{len(set(counted))} entries that count: {', '.join(dict.fromkeys(counted)) or 'none'}"
    return f"{said}; refused: {', '.join(refused)}" if refused else said


def _theirs(subject: Subject, changed: Any, case: Case) -> Tensor:
    """What transformers computes from the tiny checkpoint under another config."""
    import torch

    from ..reference import load_hf

    with torch.inference_mode():
        return case.theirs(load_hf(subject.folder, changed))


def _ours(subject: Subject, changed: Any, case: Case) -> Tensor:
    """What the model by itself does."""
    import torch

    from ..reference import fill, read_safetensors

    model = subject.build(config=changed)
    fill(model, read_safetensors(subject.folder))
    with torch.inference_mode():
        return case.ours(model)


LAWS = (config,)

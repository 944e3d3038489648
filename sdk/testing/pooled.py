"""Models that pool: the texts that they are tried on, and what they by themselves, and transformers, make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .law import Broken, NotApplicable
from .samples import random_ids

if TYPE_CHECKING:
    from torch import Tensor

    from ..pooling import Pooling, PoolingTask
    from .subject import Subject

LONG = 96
"""Tokens of the longest text."""
PAIR = ("What is shown in the picture?", "a red fox")


@dataclass(frozen=True)
class Text:
    """What is pooled.

    Attributes:
        name: What to call it.
        prompt: As the engine takes it.
        ids: Its tokens.
        types: Of a pair, which of the texts each token is of.
    """

    name: str
    prompt: Any
    ids: Sequence[int]
    types: Sequence[int] = ()


def tasks_of(subject: Subject) -> list[PoolingTask]:
    """What a model is offered for.

    Raises:
        NotApplicable: It does not pool.
    """
    from ..pooling import POOLING_TASKS

    subject.require("model")
    found = [task for task in POOLING_TASKS if task in subject.capabilities.tasks]
    if not found:
        raise NotApplicable(f"{subject.architecture} does not pool")
    return found


def no_pooling(subject: Subject) -> None:
    """Stop a law about tokens, of a model that makes none."""
    from ..pooling import POOLING_TASKS

    told = subject.capabilities.tasks
    if told and set(told) <= set(POOLING_TASKS):
        raise NotApplicable(f"{subject.architecture} pools ({', '.join(told)}): it makes no tokens")


def pooling_of(subject: Subject) -> Pooling:
    """How the tiny checkpoint makes embeddings."""
    from ..sentence_folder import read_pooling

    found: Pooling = read_pooling(subject.folder) or subject.reference.default_pooling
    return found


def texts(subject: Subject) -> list[Text]:
    """Token ids from one token to `LONG`, and a pair where the model tells its texts apart."""
    from ..pooling import takes_token_types

    room = min(subject.seq_len, pooling_of(subject).max_length or subject.seq_len)
    if room < LONG:
        raise Broken(
            f"the tiny checkpoint takes {room} tokens; give it at least {LONG}",
            smallest="the tiny checkpoint",
            cause="max_position_embeddings of its config, or max_seq_length of its sentence_bert_config.json",
        )
    lengths = {"one token": 1, "7 tokens": 7, f"{LONG} tokens": LONG}
    given = {name: random_ids(subject, n, seed=n) for name, n in lengths.items()}
    found = [Text(name, ids, ids) for name, ids in given.items()]
    if takes_token_types(subject.reference):
        made = subject.tokenizer(*PAIR)
        prompt = dict(zip(("prompt", "text_pair"), PAIR))
        found.append(Text("a pair of texts", prompt, made["input_ids"], made.get("token_type_ids", ())))
    return found


def hidden_states(subject: Subject, text: Text) -> Tensor:
    """What the model by itself computes: `(tokens, hidden)`."""
    import torch

    ids = torch.tensor(text.ids)
    types = {"token_type_ids": torch.tensor(text.types)} if len(text.types) else {}
    with torch.inference_mode():
        found: Tensor = subject.reference(ids, torch.arange(len(ids)), **types)
    return found


def hf_inputs(text: Text) -> dict[str, Tensor]:
    """A text as transformers takes it."""
    import torch

    types = {"token_type_ids": torch.tensor([text.types])} if len(text.types) else {}
    return {"input_ids": torch.tensor([text.ids]), **types}


def hf_states(subject: Subject, text: Text) -> Tensor:
    """The same by transformers."""
    import torch

    with torch.inference_mode():
        found: Tensor = subject.hf.base_model(**hf_inputs(text)).last_hidden_state[0]
    return found


def pooled(subject: Subject, text: Text, task: PoolingTask, hidden: Tensor | None = None) -> Tensor:
    """What the model by itself makes of a text, before it is finished: `(width,)`; of other hidden states, if they are given."""
    import torch

    model = subject.reference
    model.ctx = replace(model.ctx, pooling=pooling_of(subject))
    states = hidden_states(subject, text) if hidden is None else hidden
    with torch.inference_mode():
        found: Tensor = getattr(model, task)(states, torch.tensor([len(states)]))
    return found.reshape(-1)


def hf_pooled(subject: Subject, text: Text, task: PoolingTask) -> Tensor:
    """The same by transformers."""
    import torch

    if task == "embed":
        return pooled(subject, text, task, hf_states(subject, text))
    with torch.inference_mode():
        logits: Tensor = subject.hf(**hf_inputs(text)).logits[0]
    return logits


def finished(subject: Subject, vector: Tensor, task: PoolingTask) -> Tensor:
    """What a user gets of it."""
    from ..pooling import class_activation, finish_embedding

    if task == "embed":
        return finish_embedding(vector, None, normalize=pooling_of(subject).normalize)
    return class_activation(subject.config)(vector)

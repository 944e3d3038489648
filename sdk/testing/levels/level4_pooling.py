"""Level 4, pooling: vectors, classes and scores of the tiny checkpoint are those of transformers, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..law import Broken, law
from ..pooled import Text, finished, hf_pooled, hf_states, hidden_states, pooled, tasks_of, texts
from .level4_parity import distances

if TYPE_CHECKING:
    from ..subject import Subject


@law("L4.pooled-states", "A model that pools has transformers' hidden states at every position.", needs=("L1.weights",))
def pooled_states(subject: Subject) -> str:
    tasks_of(subject)
    found = texts(subject)
    for text in found:
        subject.trying = text.name
        wrong, what = distances(hidden_states(subject, text), hf_states(subject, text))
        if wrong:
            raise Broken(what.replace("logits", "hidden states"), smallest=text.name, cause=_cause(text))
    return f"{len(found)} texts of up to {max(len(text.ids) for text in found)} tokens"


def _cause(text: Text) -> str:
    """Why, where every shorter text is right."""
    if len(text.ids) == 1:
        return (
            "one token, with which attention compares nothing: the embeddings and their norm, a norm's epsilon, the order of "
            "norms and branches, v or the output projection, the activation"
        )
    if text.types:
        return "a single text is right: which of the pair's texts a token is of (token_type_ids) is not looked at"
    return (
        "one token is right: attention that is causal (BidirectionalAttention sees both directions), its scale, the order of "
        "q, k and v in a fused projection, or positions"
    )


@law(
    "L4.pooled-reference",
    "The model by itself makes the vectors, classes and scores that transformers makes.",
    needs=("L4.pooled-states",),
)
def pooled_reference(subject: Subject) -> str:
    tasks = tasks_of(subject)
    for task in tasks:
        for text in texts(subject):
            subject.trying = f"{task}, {text.name}"
            wrong, what = distances(pooled(subject, text, task)[:, None], hf_pooled(subject, text, task)[:, None])
            if wrong:
                raise Broken(
                    what.replace("logits", "numbers"),
                    smallest=subject.trying,
                    cause=f"the hidden states agree: which rows {task} takes (lengths has those of each sequence), or its layers",
                )
    return ", ".join(tasks)


@law(
    "L4.pooled-engine",
    "The engine gives what the model by itself makes, normalised and as probabilities as the checkpoint says.",
    needs=("L4.pooled-reference",),
)
def pooled_engine(subject: Subject) -> str:
    tasks, found = tasks_of(subject), texts(subject)
    for task in tasks:
        made = subject.opened.pool([text.prompt for text in found], task)
        for text, ours in zip(found, made):
            subject.trying = f"{task}, {text.name}"
            expected = finished(subject, pooled(subject, text, task), task)
            wrong, what = distances(ours[:, None], expected[:, None])
            if wrong:
                raise Broken(
                    what.replace("logits", "numbers"),
                    smallest=subject.trying,
                    cause="something that forward or the hook computes over all rows instead of over those of a sequence",
                )
    return f"{len(found)} texts in one batch; {', '.join(tasks)}"


LAWS = (pooled_states, pooled_reference, pooled_engine)

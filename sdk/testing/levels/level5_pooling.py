"""Level 5, pooling: what is made of a text depends on the text alone, not on its company or the size of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..law import Broken, law
from ..pooled import LONG, tasks_of, texts
from ..runtime import Settings
from ..samples import random_ids
from .level5_memory import keeps_nothing

if TYPE_CHECKING:
    from torch import Tensor

    from ..runtime import Prompt
    from ..subject import Subject

TOLERANCE = 1e-5
"""Most that a number may differ, times the largest."""
OTHERS = 32
SEQUENCES = (1, 3, 2 * OTHERS)
CAUSE = (
    "something computed over all tokens of a step (a mean, a mask, positions that forward makes itself) instead of by the SDK's "
    "BidirectionalAttention and over `lengths`; or something kept from another text"
)


@law(
    "L5.pooled-batch",
    "A text has the same vector, class and score alone and among others, in steps of any size.",
    needs=("L4.pooled-engine",),
)
def pooled_batch(subject: Subject) -> str:
    ours = texts(subject)
    company: list[Prompt] = [random_ids(subject, 1 + 7 * i % LONG, seed=2000 + i) for i in range(OTHERS)]
    together = [*company[: OTHERS // 2], *(text.prompt for text in ours), *company[OTHERS // 2 :]]
    first = OTHERS // 2
    for task in tasks_of(subject):
        alone = [subject.opened.pool([text.prompt], task)[0] for text in ours]
        for number in SEQUENCES:
            with subject.opened_with(Settings(step_sequences=number)) as opened:
                made = opened.pool(together, task)[first : first + len(ours)]
            for text, a, b in zip(ours, alone, made):
                what = _apart(a, b)
                if what:
                    where = f"among {OTHERS} others, at most {number} in a step"
                    raise Broken(f"{what}, {where}", smallest=f"{task}, {text.name}, {where}", cause=CAUSE)
    return f"{len(ours)} texts among {OTHERS} others, {', '.join(map(str, SEQUENCES))} in a step"


def _apart(alone: Tensor, among: Tensor) -> str:
    worst = float((alone - among).abs().max())
    bound = TOLERANCE * max(1.0, float(alone.abs().max()))
    return "" if worst <= bound else f"numbers differ by up to {worst:.2g} from those of the text alone"


@law(
    "L5.pooled-memory",
    "Texts leave nothing behind: memory does not grow with their number.",
    needs=("L5.pooled-batch",),
)
def pooled_memory(subject: Subject) -> str:
    return keeps_nothing(subject, _ask)


def _ask(subject: Subject, number: int) -> str:
    """A text that was not asked before."""
    for task in tasks_of(subject):
        subject.opened.pool([random_ids(subject, 37, seed=500 + number)], task)
    return "a text"


LAWS = (pooled_batch, pooled_memory)

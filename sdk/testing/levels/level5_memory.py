"""Level 5, memory: what a request needed is gone when it has ended. A plugin that keeps a little of each fills any machine."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from ..decoder_prompts import for_engine
from ..law import Broken, NotApplicable, law
from ..needles import Needle, media_needles, random_item, with_item
from ..samples import random_ids

if TYPE_CHECKING:
    from torch import Tensor

    from ..subject import Subject

WARM_UP = 3
"""Rounds in which whatever is made once is made."""
ROUNDS = 4
"""Rounds after that; something is kept when every one of them keeps some."""
BLOCK = 4096
"""Smaller blocks are not looked at: the interpreter keeps many, such as names of attributes, and tables of them."""


@law("L5.memory", "Requests leave nothing behind: memory does not grow with their number.", needs=("L5.paged",))
def memory(subject: Subject) -> str:
    return keeps_nothing(subject, _ask)


def keeps_nothing(subject: Subject, ask: Callable[[Subject, int], str]) -> str:
    """Ask round after round, and look at what is left: `ask` does so with what was not asked before, and says what it was."""
    gc.collect()
    gc.freeze()  # what is there already is not looked at again
    tracemalloc.start()
    try:
        for number in range(WARM_UP):
            ask(subject, number)
        tensors, blocks = [_live_tensors()], [_block_bytes()]
        for number in range(WARM_UP, WARM_UP + ROUNDS):
            asked = ask(subject, number)
            tensors.append(_live_tensors())
            blocks.append(_block_bytes())
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    cause = "a list, dict or cache of the plugin's that grows with each call: a functools.cache over media, a tensor kept on self"
    kept = [after - before for before, after in pairwise(tensors)]
    if all(kept):
        shape, dtype = max(kept[-1], key=lambda key: kept[-1][key])
        raise Broken(
            f"each of {ROUNDS} rounds of {asked} left tensors behind, the last {kept[-1].total()}, most of them {dtype} {shape}",
            smallest=asked,
            cause=cause,
        )
    grown = [after - before for before, after in pairwise(blocks)]
    if min(grown) >= BLOCK:
        raise Broken(
            f"each of {ROUNDS} rounds of {asked} left {min(grown)} bytes or more behind, in Python or numpy",
            smallest=asked,
            cause=cause,
        )
    return f"{ROUNDS} rounds of {asked}"


def _ask(subject: Subject, number: int) -> str:
    """A text and one item of each modality, none of which was asked before; says what they were."""
    prompts = [Needle("a text", lambda: for_engine(subject, random_ids(subject, 37, seed=500 + number)))]
    asked = ["a text"]
    if subject.plugin.has("processor") and media_needles(subject):
        for modality in subject.limits:
            try:
                prompts.append(with_item(subject, modality, "of its own", random_item(modality, 500 + number)))
            except NotApplicable:
                continue
            asked.append(f"an {modality}" if modality[0] in "aeiou" else f"a {modality}")
    for prompt in prompts:
        subject.opened.generate([prompt.make()], 1)
    return " and ".join(asked)


def _live_tensors() -> Counter[tuple[tuple[int, ...], str]]:
    """How many tensors there are of each shape and dtype."""
    import torch

    gc.collect()
    found: list[Tensor] = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return Counter((tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in found)


def _block_bytes() -> int:
    """Bytes of the larger blocks that Python and numpy have allocated since memory is watched, and not freed."""
    return sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size >= BLOCK)


LAWS = (memory,)

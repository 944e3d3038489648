"""A step's sequences as arrays, for kernels that walk pages by themselves: each reads its own row of the page table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .transfer import Places, send

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Blocks:
    """Some tokens of one sequence each, for one program of a kernel each.

    Attributes:
        where: `(blocks, 2)` int32: which sequence, and the first of its tokens.
        decodes: So many blocks at the beginning are the one token of a sequence that computes no other.
    """

    where: Tensor
    decodes: int


@dataclass
class StepSequences:
    """The sequences of a step, in the order of their tokens; those that compute one token come first.

    Attributes:
        slots: `(sequences,)` int32: each sequence's row of the page table.
        firsts: `(sequences + 1,)` int32: row of the step where each sequence's tokens begin.
        lengths: `(sequences,)` int32: keys that the last of its tokens sees.
        counts: `(sequences,)` how many tokens it computes.
        longest: The most keys of a sequence.
        name, places: Where the arrays are put.
    """

    slots: Tensor
    firsts: Tensor
    lengths: Tensor
    counts: Ints
    longest: int
    name: str
    places: Places
    _blocks: dict[int, Blocks] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, slots: Ints, counts: Ints, lengths: Ints, places: Places) -> StepSequences:
        """Put the arrays on the device."""
        firsts = np.concatenate(([0], np.cumsum(counts)))
        a, b, c = (
            places.put(f"{name} {kind}", x.astype(np.int32))
            for kind, x in (("slots", slots), ("firsts", firsts), ("lengths", lengths))
        )
        return cls(a, b, c, counts, int(lengths.max()), name, places)

    def blocks(self, tokens: int) -> Blocks:
        """The step in blocks of at most `tokens` tokens of one sequence. Made once a step for each number."""
        found = self._blocks.get(tokens)
        if found is None:
            many = -(-self.counts // tokens)
            sequence = np.repeat(np.arange(len(many)), many)
            place = np.arange(len(sequence)) - np.repeat(np.cumsum(many) - many, many)
            where = np.stack((sequence, place * tokens), axis=1).astype(np.int32)
            longer = np.flatnonzero(self.counts > 1)
            decodes = int(longer[0]) if len(longer) else len(many)
            self._blocks[tokens] = found = Blocks(self.places.put(f"{self.name} blocks {tokens}", where), decodes)
        return found


class PageTable:
    """The page numbers of each slot, on the device. On a CPU it is the host's own array.

    Args:
        pages: `(slots, pages)` int32, the host's; whoever changes it calls `changed`.
        device: Where the kernels are.
    """

    def __init__(self, pages: NDArray[np.int32], device: torch.device) -> None:
        self._host = pages
        host = torch.from_numpy(pages)
        self.mirrors = device.type != "cpu"
        self.tensor = torch.zeros_like(host, device=device) if self.mirrors else host
        self._places: list[Ints] = []

    def changed(self, slot: int, first: int, last: int) -> None:
        """Pages `first … last - 1` of a slot are new."""
        if self.mirrors:
            self._places.append(np.arange(first, last) + slot * self._host.shape[1])

    def send(self) -> None:
        """Have the device follow: only what is new travels."""
        if self._places:
            places = np.concatenate(self._places)
            self._places.clear()
            device = self.tensor.device
            new = send(self._host.reshape(-1)[places], device)
            self.tensor.view(-1).index_copy_(0, send(places, device), new)

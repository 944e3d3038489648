"""Steps in which every sequence decodes one token: run as the model's own Python says, then from a recording."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..step import StepTensors
from .arena import Arena, Full
from .tape import Refused, Tape

logger = logging.getLogger(__name__)
Forward = Callable[[Tensor, Tensor], Tensor]
"""`(tokens,)` ids and positions → logits `(tokens, vocab)`."""
STEPS_BEFORE = 3
"""Steps of one size that are run as they are before one is recorded: to record costs as much as some steps."""
MOST_RECORDINGS = 64
ARENA_BYTES = 48 * 2**20
"""What a step may need on the way. The system gives the memory as it is written."""


class Recording:
    """A step of so many sequences.

    Args:
        forward: The model.
        step: The first that is run.
        memory: Of the arena, shared by all recordings.

    Raises:
        Refused: The step cannot be repeated.
        Full: It needs more memory than there is.
    """

    def __init__(self, forward: Forward, step: StepTensors, memory: np.ndarray) -> None:
        self._ids, self._positions = step.input_ids.clone(), step.positions.clone()
        self._take(step)
        arena = Arena(memory)
        self._tape = Tape(arena)
        with self._tape.recording():
            self._logits = forward(self._ids, self._positions)
        if arena.num_held > 1:  # in the next step there would be other numbers in them
            raise Refused(f"keeps {arena.num_held - 1} tensors for later steps")
        self.trusted = False

    def _take(self, step: StepTensors) -> None:
        """Have a step's own arrays be those that were recorded."""
        self._ids.copy_(step.input_ids)
        self._positions.copy_(step.positions)
        step.input_ids, step.positions = self._ids, self._positions

    def run(self, step: StepTensors) -> Tensor:
        """Logits `(tokens, vocab)`, which the next step overwrites."""
        self._take(step)
        self._tape.play()
        return self._logits


class RecordedSteps:
    """Runs steps in which every sequence decodes one token, with as little Python as can be.

    A number of sequences that comes again is recorded; the next step of as many is run both ways, and only if the logits are the
    same bit by bit, the recording serves from then on. A model that cannot be recorded, or gives something else, runs as it is.

    Args:
        forward: The model.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._memory = np.zeros(ARENA_BYTES, dtype=np.uint8)
        self._recordings: OrderedDict[tuple[int, int], Recording | None] = OrderedDict()
        self._seen: Counter[tuple[int, int]] = Counter()
        self.refused: str | None = None
        """Why this model's steps are not recorded."""

    def logits(self, step: StepTensors) -> Tensor:
        """Logits `(tokens, vocab)` of a step, which the next step may overwrite."""
        key = len(step.input_ids), torch.get_num_threads()
        if self.refused is None and key in self._recordings:
            self._recordings.move_to_end(key)
            recording = self._recordings[key]
            if recording is not None:
                return recording.run(step) if recording.trusted else self._compared(recording, step)
        elif self.refused is None:
            self._seen[key] += 1
            if self._seen[key] > STEPS_BEFORE:
                self._record(key, step)
        return self._forward(step.input_ids, step.positions)

    def _record(self, key: tuple[int, int], step: StepTensors) -> None:
        try:
            self._recordings[key] = Recording(self._forward, step, self._memory)
        except Full:
            self._recordings[key] = None
        except Refused as why:
            self._refuse(f"it {why}")
        if len(self._recordings) > MOST_RECORDINGS:
            old, _ = self._recordings.popitem(last=False)
            del self._seen[old]

    def _compared(self, recording: Recording, step: StepTensors) -> Tensor:
        """Logits as the model gives them; the recording is trusted if it gives the same."""
        logits = self._forward(step.input_ids, step.positions)
        recording.trusted = _same_bits(logits, recording.run(step))
        if not recording.trusted:
            self._refuse("a recorded step gave other numbers than the model")
        return logits

    def _refuse(self, why: str) -> None:
        logger.info("steps are not recorded, and run a little slower: %s", why)
        self.refused = why
        self._recordings.clear()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, NaN included."""
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))

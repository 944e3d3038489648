"""llama.cpp by llama-cpp-python's low-level interface: text only, and no sharing of equal beginnings unless it is told of them.

Its environment: `pip install llama-cpp-python gguf`, which compiles it for the machine it is on, some ten minutes of one core
(`CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"` and `CMAKE_BUILD_PARALLEL_LEVEL=1` keep it to what is needed here).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cases import Ask
from .gguf_file import gguf_file

BATCH = 2048
"""Tokens that are given to it at a time."""
ROOM = 64
"""A sequence's room is a multiple of this."""


class LlamaCpp:
    """All sequences of a case together in one context: prompts first, then a token of each at a time, the likeliest one."""

    weights = "BF16"

    def __init__(self, folder: Path) -> None:
        import llama_cpp

        config = json.loads((folder / "config.json").read_text())
        if config["model_type"] != "llama":
            raise NotImplementedError(
                f"llama.cpp's adapter takes text alone: {config['model_type']} needs a projector or decoder of its own"
            )
        self.cpp, self.vocab, self.image_token, self.parts = llama_cpp, int(config["vocab_size"]), 0, {}
        llama_cpp.llama_backend_init()
        file = str(gguf_file(folder, self.weights)).encode()
        self.model = llama_cpp.llama_model_load_from_file(file, llama_cpp.llama_model_default_params())
        assert self.model is not None
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.shape = (0, 0)
        self.context: Any = None

    def generate(self, asks: list[Ask]) -> None:
        """See `benchmarks.cases.System`."""
        self._make_room(asks)
        made: list[list[int]] = [[] for _ in asks]
        waiting = [(place, token, i) for i, ask in enumerate(asks) for place, token in enumerate(ask.ids)]
        last = {i: len(ask.ids) - 1 for i, ask in enumerate(asks)}
        for first in range(0, len(waiting), BATCH):
            self._step(waiting[first : first + BATCH], last, made)
        while going := [i for i, ask in enumerate(asks) if len(made[i]) < ask.new_tokens]:
            last = {i: len(asks[i].ids) + len(made[i]) - 1 for i in going}
            self._step([(last[i], made[i][-1], i) for i in going], last, made)
        assert [len(tokens) for tokens in made] == [ask.new_tokens for ask in asks]

    def _make_room(self, asks: list[Ask]) -> None:
        """A context for so many sequences of such a length; the last one where it fits exactly."""
        longest = max(len(ask.ids) + ask.new_tokens for ask in asks)
        shape = (len(asks), -(-longest // ROOM) * ROOM)
        if shape != self.shape:
            if self.context is not None:
                self.cpp.llama_free(self.context)
            params = self.cpp.llama_context_default_params()
            params.n_seq_max, params.n_ctx = shape[0], shape[0] * shape[1]
            params.n_batch = BATCH
            params.n_threads = params.n_threads_batch = os.cpu_count()
            self.context, self.shape = self.cpp.llama_init_from_model(self.model, params), shape
            assert self.context is not None
        self.cpp.llama_memory_clear(self.cpp.llama_get_memory(self.context), False)

    def _step(self, tokens: Sequence[tuple[int, int, int]], last: dict[int, int], made: list[list[int]]) -> None:
        """Compute tokens, each with its place and its sequence; those at a sequence's last place bring the next one."""
        batch, rows = self.batch, []
        batch.n_tokens = len(tokens)
        for n, (place, token, sequence) in enumerate(tokens):
            batch.token[n], batch.pos[n] = token, place
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
            batch.logits[n] = place == last[sequence]
            if batch.logits[n]:
                rows.append(sequence)
        assert self.cpp.llama_decode(self.context, batch) == 0
        if rows:
            logits = np.ctypeslib.as_array(self.cpp.llama_get_logits(self.context), (len(rows), self.vocab))
            for sequence, token in zip(rows, logits.argmax(axis=1).tolist()):
                made[sequence].append(token)


class LlamaCppInt8(LlamaCpp):
    """Weights in 8 bits, a scale for each 32 of them."""

    weights = "Q8_0"

"""The end of a step that pools: from the hidden states of its sequences to one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.interfaces import Model
from sdk.pooling import (
    Pooler,
    Pooling,
    PoolingTask,
    class_activation,
    finish_embedding,
    supports_pooling,
)
from sdk.spec import Capabilities

from ..errors import EngineError, InvalidRequestError, PluginContractError
from ..request import Request
from ..scheduler import Scheduled
from ..transfer import send
from .params import PoolingParams

OF_TEXT = Pooling(("last",), normalize=True)
"""How a model that generates makes embeddings: the state that it would go on from has seen all of the text."""


class Pooled(NamedTuple):
    """What a step has made.

    Attributes:
        vectors: Sequences, and what was asked for: an embedding, probabilities of classes, or a score alone.
        failed: Sequences that asked for what the model does not have.
        broken: Sequences whose numbers are none.
    """

    vectors: list[tuple[Request, NDArray[np.float32]]]
    failed: list[tuple[Request, EngineError]]
    broken: list[Request]


class PoolingHead:
    """Pools the sequences of each step.

    Args:
        model: Filled.
        capabilities: Its tasks here.
        plugin: What to call the plugin in errors.
        device: Where the hidden states are.
    """

    def __init__(self, model: Model, capabilities: Capabilities, plugin: str, device: torch.device) -> None:
        self.model, self.plugin, self.device = model, plugin, device
        self.tasks: tuple[PoolingTask, ...] = capabilities.tasks  # type: ignore[assignment]  # of an engine that pools
        self.pooling: Pooling = model.pooling if supports_pooling(model) else model.ctx.pooling or OF_TEXT  # type: ignore[assignment]

    def __call__(self, order: Sequence[Scheduled], hidden: Tensor) -> Pooled:
        """Pool a step.

        Args:
            order: Its sequences, in the order of their rows; each is there whole.
            hidden: `(tokens, hidden)`.
        """
        lengths = send(np.array([s.count for s in order], dtype=np.int64), self.device)
        asked = [s.request.pooling or PoolingParams(self.tasks[0]) for s in order]
        made = {task: self._made(task, hidden, lengths) for task in dict.fromkeys(params.task for params in asked)}
        fine = {task: vectors.isfinite().all(dim=-1).tolist() for task, vectors in made.items()}
        found = Pooled([], [], [])
        for row, (scheduled, params) in enumerate(zip(order, asked)):
            request, vector = scheduled.request, made[params.task][row]
            if params.dimensions is not None and params.dimensions > len(vector):
                error = InvalidRequestError(
                    f"dimensions={params.dimensions}, but this model's embeddings have {len(vector)}",
                    param="dimensions",
                )
                found.failed.append((request, error))
            elif not fine[params.task][row]:
                found.broken.append(request)
            else:
                own = self._finished(vector, params).clone()  # no view of the others, which would stay with it
                found.vectors.append((request, own.numpy()))
        return found

    def _made(self, task: PoolingTask, hidden: Tensor, lengths: Tensor) -> Tensor:
        """What the model makes of all sequences, `(sequences, …)` on the host."""
        if supports_pooling(self.model):
            out: Tensor = getattr(self.model, task)(hidden, lengths)
        else:
            out = Pooler(self.pooling.kinds)(hidden, lengths)
        wanted = 1 if task == "score" else 2
        if out.ndim != wanted or len(out) != len(lengths):
            shape = f"({len(lengths)},)" if task == "score" else f"({len(lengths)}, width)"
            raise PluginContractError(
                f"[{self.plugin}] {task}: expected {shape}, got {tuple(out.shape)}", plugin=self.plugin
            )
        return out.float().view(len(out), -1).cpu()

    def _finished(self, vector: Tensor, params: PoolingParams) -> Tensor:
        if params.task == "embed":
            normalize = self.pooling.normalize if params.normalize is None else params.normalize
            return finish_embedding(vector, params.dimensions, normalize=normalize)
        made: Tensor = class_activation(self.model.config)(vector)
        return made

"""Runs a planned step: has media encoded, merges embeddings, runs the model, returns logits of the rows to sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.interfaces import Model, supports_multimodal, takes_media_mask
from sdk.layers import StateLayer
from sdk.multimodal.merge import merge_by_mask
from sdk.pooling import takes_token_types

from .encoding import MediaEncoder
from .errors import EngineError, PluginContractError
from .logits.logprobs import TokenLogprobs, prompt_logprobs
from .pooling.head import PoolingHead
from .recording.steps import RecordedSteps
from .request import Request
from .scheduler import Scheduled, StepPlan
from .step import StepBuilder, StepHolder, StepTensors
from .transfer import send
from .wanted import OutOfOrder


@dataclass
class StepResult:
    """What a step gave.

    Attributes:
        requests: The sequences to sample, one for each row of `logits`.
        logits: `(rows, vocab)`.
        computed: What was computed, for the book-keeping.
        failed: Sequences that something of their own ended, such as their media, with the reason.
        finite: Sequences, and of each whether all its rows are numbers; None where the logits tell it of all of them.
        prompt_logprobs: Sequences that asked, with those of the prompt's next tokens.
        pooled: Sequences whose prompt was pooled, with what was made of it.
    """

    requests: list[Request] = field(default_factory=list)
    logits: Tensor | None = None
    computed: list[Scheduled] = field(default_factory=list)
    failed: list[tuple[Request, EngineError]] = field(default_factory=list)
    finite: tuple[list[Scheduled], Tensor] | None = None
    prompt_logprobs: list[tuple[Request, list[TokenLogprobs]]] = field(default_factory=list)
    pooled: list[tuple[Request, NDArray[np.float32]]] = field(default_factory=list)

    @cached_property
    def broken(self) -> list[Request]:
        """Sequences whose numbers went wrong before any logits: nothing of them may be used. Waits for the device."""
        if self.finite is None:
            return []
        order, finite = self.finite
        return [s.request for s, fine in zip(order, finite.tolist()) if not fine]


class Runner:
    """Owns the model and runs it.

    Args:
        model: Filled and bound.
        builder: Makes a step's tensors.
        holder: Where the bound kernels find them.
        encoder: Encodes media.
        plugin: What to call the plugin in errors.
        device: Where the tensors are.
        head: What pools the sequences of a step; None: they are sampled.
        recording: Steps that only decode may be run from a recording.
    """

    def __init__(
        self,
        model: Model,
        builder: StepBuilder,
        holder: StepHolder,
        encoder: MediaEncoder,
        plugin: str,
        device: torch.device,
        head: PoolingHead | None = None,
        *,
        recording: bool = False,
    ) -> None:
        self.model, self.builder, self.holder, self.encoder = model, builder, holder, encoder
        self.plugin, self.device, self.head = plugin, device, head
        self.narrows = self._can_narrow()
        self.recorded = RecordedSteps(self._decoded) if recording and self._can_record() else None
        self._takes_mask, self._takes_types = takes_media_mask(model), takes_token_types(model)

    @torch.inference_mode()
    def run(self, plan: StepPlan, *, every_row: bool = False) -> StepResult:
        """Compute a plan. A sequence whose own media fail is left out and reported; the others go on in the same step.

        Args:
            plan: What the scheduler planned.
            every_row: Return logits of all rows, in the order of `computed`, not only of those to sample.
        """
        result = StepResult(failed=self.encoder.encode(plan))
        lost = {id(r) for r, _ in result.failed}
        result.computed = [s for s in plan if id(s.request) not in lost] if lost else plan
        if not result.computed:
            return result
        step = self.builder.build(result.computed)
        self.holder.current = step
        try:
            if self.recorded is not None and not every_row and self._only_decodes(step):
                result.requests, result.logits = step.sampled, self.recorded.logits(step)
                return result
            hidden = self._narrowed(step) if self.narrows and not every_row else self._forward(step)
            if self.head is not None:
                self._pool(self.head, step, hidden, result)
                return result
            result.requests = step.sampled
            if every_row:
                result.computed, result.logits = step.order, self.model.compute_logits(hidden)
                return result
            result.finite = _finite(step, hidden)
            if len(hidden) > len(step.sample_rows):
                self._prompt_logprobs(step, hidden, result)
            if result.requests:
                every = len(step.sample_rows) == len(hidden)
                result.logits = self._logits(hidden if every else hidden[step.sample_rows])
        finally:
            self.holder.current = None
        return result

    def _can_narrow(self) -> bool:
        """Whether the model's last layer may compute fewer rows than the step has."""
        if self.device.type != "cpu" or self.head is not None:
            return False
        from .kernels.narrowing import narrow_after_last_attention  # which needs the step, as this module does

        return narrow_after_last_attention(self.model, self.holder)

    def _narrowed(self, step: StepTensors) -> Tensor:
        """Hidden states, of which after the last attention those are computed that become logits."""
        if not step.watched and not any(s.request.params.prompt_logprobs is not None for s in step.order):
            step.want_few()
        try:
            return self._forward(step)
        except OutOfOrder:  # the model calls its layers in another order than it has them
            self.narrows, step.wanted = False, None
            return self._forward(step)

    def _can_record(self) -> bool:
        """Whether steps may be run twice over, as it is done once to see that a recording gives the same: a layer that keeps
        a state would advance it twice. On a GPU the place of recordings is that of captured graphs."""
        keeps = any(isinstance(module, StateLayer) for module in self.model.modules())
        return self.device.type == "cpu" and self.head is None and not keeps and not takes_token_types(self.model)

    def _only_decodes(self, step: StepTensors) -> bool:
        """Whether every sequence computes one token and is given the next, and nobody asks for more."""
        return len(step.sampled) == len(step.order) == len(step.input_ids) and not (
            step.watched or any(s.request.items and s.request.items_between(s.start, s.start + 1) for s in step.order)
        )

    def _decoded(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Logits `(tokens, vocab)` of tokens that are nothing but ids."""
        return self._logits(self._called(input_ids, positions))

    def _pool(self, head: PoolingHead, step: StepTensors, hidden: Tensor, result: StepResult) -> None:
        made = head(step.order, hidden)
        result.pooled = made.vectors
        result.failed += made.failed
        result.broken.extend(made.broken)

    def _forward(self, step: StepTensors) -> Tensor:
        placed = self._placed_embeddings(step)
        if placed is None:
            types = {"token_type_ids": self._token_types(step)} if self._takes_types else {}
            return self._called(step.input_ids, step.positions, **types)
        embeddings, mask = placed
        if not supports_multimodal(self.model):  # a prompt that came as embeddings
            inputs_embeds = merge_by_mask(self.model.get_input_embeddings(step.input_ids), embeddings, mask)
        else:
            kwargs = {"is_multimodal": mask} if self._takes_mask else {}
            inputs_embeds = self.model.get_input_embeddings(step.input_ids, embeddings, **kwargs)
        return self._called(None, step.positions, inputs_embeds=inputs_embeds)

    def _token_types(self, step: StepTensors) -> Tensor | None:
        """Which of a pair's texts each token is of; None where no sequence is a pair."""
        if not any(s.request.token_types for s in step.order):
            return None
        types = np.zeros(len(step.input_ids), dtype=np.int64)
        row = 0
        for s in step.order:
            if s.request.token_types:
                types[row : row + s.count] = s.request.token_types[s.start : s.start + s.count]
            row += s.count
        return send(types, self.device)

    def _called(self, *args: Any, **kwargs: Any) -> Tensor:
        hidden: Tensor = self.model(*args, **kwargs)
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.model.compute_logits(hidden)
        if logits.ndim != 2 or len(logits) != len(hidden):
            raise PluginContractError(
                f"[{self.plugin}] compute_logits: expected ({len(hidden)}, vocabulary), got {tuple(logits.shape)}",
                plugin=self.plugin,
            )
        return logits

    def _prompt_logprobs(self, step: StepTensors, hidden: Tensor, result: StepResult) -> None:
        """Of the prompt's tokens that follow this step's rows, for who asked; what is known from before a preemption is
        not computed again."""
        row = 0
        for s in step.order:
            request, wanted = s.request, s.request.params.prompt_logprobs
            first, last = max(s.start, len(request.prompt_logprobs)), min(s.start + s.count, request.prompt_len - 1)
            if wanted is not None and first < last and request not in result.broken:
                rows = hidden[row + first - s.start : row + last - s.start]
                found = prompt_logprobs(self._logits, rows, request.token_ids[first + 1 : last + 1], wanted)
                if found is None:
                    result.broken.append(request)
                else:
                    result.prompt_logprobs.append((request, found))
            row += s.count

    def _placed_embeddings(self, step: StepTensors) -> tuple[list[Tensor], Tensor] | None:
        """The rows of media embeddings that this step's tokens take, and the mask of those tokens."""
        embeddings: list[Tensor] = []
        mask: Tensor | None = None
        row = 0
        for s in step.order:
            for i in s.request.items_between(s.start, s.start + s.count) if s.request.items else ():
                place = s.request.items[i].placeholder
                first, last = max(s.start, place.offset), min(s.start + s.count, place.offset + place.length)
                taken = place.mask[first - place.offset : last - place.offset]
                skipped = int(place.mask[: first - place.offset].sum())
                embeddings.append(s.request.encoded[i][skipped : skipped + int(taken.sum())])
                if mask is None:
                    mask = torch.zeros(len(step.input_ids), dtype=torch.bool)
                mask[row + first - s.start : row + last - s.start] = torch.from_numpy(taken)
            row += s.count
        return None if mask is None else (embeddings, send(mask.numpy(), self.device))


def _finite(step: StepTensors, hidden: Tensor) -> tuple[list[Scheduled], Tensor] | None:
    """Of each sequence whether all of its rows are numbers, where some rows have no logits; those with logits show it there."""
    if len(hidden) == len(step.sample_rows):
        return None
    seen = hidden if step.wanted is None or step.wanted.queries is None else step.wanted.queries.flatten(1)
    wrong = (~seen.sum(dim=-1, dtype=torch.float32).isfinite()).float()
    firsts = step.sequences.firsts.long()
    counted = torch.nn.functional.pad(wrong.cumsum(0), (1, 0))
    return step.order, counted[firsts[1:]] == counted[firsts[:-1]]

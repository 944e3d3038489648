"""Runs a planned step: encodes media, merges embeddings, runs the model, returns logits of the rows to sample."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdk.interfaces import Model, supports_multimodal
from sdk.multimodal.fields import FieldValue, join_items
from sdk.multimodal.merge import merge_by_mask

from .cache.media import EncoderCache
from .errors import EngineError, PluginContractError, PluginRuntimeError
from .logits.logprobs import TokenLogprobs, prompt_logprobs
from .request import Request
from .scheduler import Scheduled, StepPlan
from .step import StepBuilder, StepHolder, StepTensors

Item = tuple[Request, int]


@dataclass
class StepResult:
    """What a step gave.

    Attributes:
        requests: The sequences to sample, one for each row of `logits`.
        logits: `(rows, vocab)`.
        computed: What was computed, for the book-keeping.
        failed: Sequences whose own media ended them, with the reason.
        broken: Sequences whose numbers went wrong before any logits: nothing of them may be used.
        prompt_logprobs: Sequences that asked, with those of the prompt's next tokens.
    """

    requests: list[Request] = field(default_factory=list)
    logits: Tensor | None = None
    computed: list[Scheduled] = field(default_factory=list)
    failed: list[tuple[Request, EngineError]] = field(default_factory=list)
    broken: list[Request] = field(default_factory=list)
    prompt_logprobs: list[tuple[Request, list[TokenLogprobs]]] = field(default_factory=list)


class Runner:
    """Owns the model and runs it.

    Args:
        model: Filled and bound.
        builder: Makes a step's tensors.
        holder: Where the bound kernels find them.
        encoder_cache: Where embeddings are kept for those who bring the same media later.
        hidden_size: Width of the language model.
        plugin: What to call the plugin in errors.
        dtype: Of the activations.
    """

    def __init__(
        self,
        model: Model,
        builder: StepBuilder,
        holder: StepHolder,
        encoder_cache: EncoderCache,
        hidden_size: int,
        plugin: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.model, self.builder, self.holder, self.encoder_cache = model, builder, holder, encoder_cache
        self.hidden_size, self.plugin, self.dtype, self.device = hidden_size, plugin, dtype, device
        parameters = inspect.signature(model.get_input_embeddings).parameters
        self._takes_mask = "is_multimodal" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @torch.inference_mode()
    def run(self, plan: StepPlan, *, every_row: bool = False) -> StepResult:
        """Compute a plan. A sequence whose own media fail is left out and reported; the others go on in the same step.

        Args:
            plan: What the scheduler planned.
            every_row: Return logits of all rows, in the order of `computed`, not only of those to sample.
        """
        result = StepResult(failed=self._encode(plan))
        lost = {id(r) for r, _ in result.failed}
        result.computed = [s for s in plan if id(s.request) not in lost]
        if not result.computed:
            return result
        step = self.builder.build(result.computed)
        self.holder.current = step
        try:
            hidden = self._forward(step)
            result.requests = [s.request for s in step.order if s.samples]
            if every_row:
                result.computed, result.logits = step.order, self.model.compute_logits(hidden)
                return result
            result.broken = _not_finite(step, hidden)
            if len(hidden) > len(step.sample_rows):
                self._prompt_logprobs(step, hidden, result)
            if result.requests:
                result.logits = self._logits(hidden[step.sample_rows])
        finally:
            self.holder.current = None
        return result

    def _forward(self, step: StepTensors) -> Tensor:
        placed = self._placed_embeddings(step)
        if placed is None:
            return self._called(step.input_ids, step.positions)
        embeddings, mask = placed
        if not supports_multimodal(self.model):  # a prompt that came as embeddings
            inputs_embeds = merge_by_mask(self.model.get_input_embeddings(step.input_ids), embeddings, mask)
        else:
            kwargs = {"is_multimodal": mask} if self._takes_mask else {}
            inputs_embeds = self.model.get_input_embeddings(step.input_ids, embeddings, **kwargs)
        return self._called(None, step.positions, inputs_embeds=inputs_embeds)

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
        return None if mask is None else (embeddings, mask.to(self.device))

    # ---- media ------------------------------------------------------------------------------------------------------

    def _encode(self, plan: StepPlan) -> list[tuple[Request, EngineError]]:
        """Encode the media items of a plan, those of a modality together and equal ones once; each item's failure is its
        request's own."""
        by_modality: dict[str, list[Item]] = {}
        first: dict[bytes, Item] = {}
        repeated: list[tuple[Item, Item]] = []
        for s in plan:
            for i in s.encode:
                item = s.request.items[i]
                if item.embeddings is not None:
                    s.request.encoded[i] = item.embeddings.to(self.device, self.dtype)
                elif item.key and item.key in first:
                    repeated.append(((s.request, i), first[item.key]))
                else:
                    by_modality.setdefault(item.modality, []).append((s.request, i))
                    first[item.key] = (s.request, i)
        failed: dict[int, tuple[Request, EngineError]] = {}
        for items in by_modality.values():
            for batch in _same_arguments(items):
                self._encode_batch(batch, failed)
        for (request, i), (leader, n) in repeated:
            if n in leader.encoded:
                request.encoded[i] = leader.encoded[n]
            else:
                self._encode_batch([(request, i)], failed)
        return list(failed.values())

    def _encode_batch(self, items: Sequence[Item], failed: dict[int, tuple[Request, EngineError]]) -> None:
        """Encode items of one modality; when the batch fails, each of its requests by itself, to find whose fault it is."""
        try:
            embeddings = self._checked(items, self.model_embeddings(items))
        except Exception as e:
            requests = list({id(r): r for r, _ in items}.values())
            if len(requests) > 1:
                for request in requests:
                    self._encode_batch([x for x in items if x[0] is request], failed)
                return
            failed[id(requests[0])] = (requests[0], self._error(e, requests[0]))
            return
        for (request, i), rows in zip(items, embeddings):
            request.encoded[i] = rows
            if request.items[i].key:
                self.encoder_cache.put(request.items[i].key, rows)

    def model_embeddings(self, items: Sequence[Item]) -> Any:
        """Call the plugin's encoder for a batch of items."""
        kwargs = join_items([r.items[i].kwargs for r, i in items])
        return self.model.get_multimodal_embeddings(**{k: self._to_device(v) for k, v in kwargs.items()})  # type: ignore[operator]

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._to_device(v) for v in value]
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
        return value

    def _checked(self, items: Sequence[Item], embeddings: Any) -> list[Tensor]:
        """What the encoder returned, as one `(rows, hidden)` for each item, exactly as many as their placeholders take."""
        if embeddings is None or not isinstance(embeddings, (Tensor, list, tuple)):
            raise _Broken(f"returned {type(embeddings).__name__} for {len(items)} items")
        if len(embeddings) != len(items):
            shape = f" {tuple(embeddings.shape)}" if isinstance(embeddings, Tensor) else ""
            raise _Broken(
                f"expected embeddings of {len(items)} items, got a {type(embeddings).__name__}{shape} of {len(embeddings)}"
            )
        for n, ((request, i), e) in enumerate(zip(items, embeddings)):
            item = request.items[i]
            wanted = (item.placeholder.num_embeds, self.hidden_size)
            if not isinstance(e, Tensor) or not e.is_floating_point() or tuple(e.shape) != wanted:
                got = f"{e.dtype} {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__
                raise _Broken(
                    f"{item.modality} {item.placeholder.index} (item {n} of the batch): expected {wanted}, got {got}"
                )
            if not torch.isfinite(e).all():
                raise _Broken(
                    f"{item.modality} {item.placeholder.index}: embeddings hold NaN or infinity", "numerical_error"
                )
        return [e.detach().to(self.device, self.dtype) for e in embeddings]

    def _error(self, e: Exception, request: Request) -> EngineError:
        if isinstance(e, EngineError):
            return e
        code = e.code if isinstance(e, _Broken) else None
        message = str(e) if isinstance(e, _Broken) else f"{type(e).__name__}: {e}"
        error = PluginRuntimeError(
            message, plugin=self.plugin, hook="get_multimodal_embeddings", request_id=request.request_id, code=code
        )
        error.__cause__ = e
        return error


def _not_finite(step: StepTensors, hidden: Tensor) -> list[Request]:
    """Sequences with NaN or infinity in a row whose logits nobody computes; the others show it in their logits."""
    if len(hidden) == len(step.sample_rows):
        return []
    finite = hidden.sum(dim=-1, dtype=torch.float32).isfinite()
    if finite.all():
        return []
    parts = torch.split(finite, [s.count for s in step.order])
    return [s.request for s, part in zip(step.order, parts) if not part.all()]


class _Broken(Exception):
    """The encoder returned what breaks its contract."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


def _same_arguments(items: Sequence[Item]) -> list[list[Item]]:
    """Items that bring the same tensors of the same shapes go to the encoder together."""
    groups: dict[tuple[tuple[str, object], ...], list[Item]] = {}
    for request, i in items:
        key = tuple((n, _kind(f)) for n, f in request.items[i].kwargs.items())
        groups.setdefault(key, []).append((request, i))
    return list(groups.values())


def _kind(value: FieldValue) -> object:
    """What two items' values must have in common to go together: the shape; of a shared value, the value itself."""
    return id(value.value) if value.field.kind == "shared" else tuple(getattr(value.value, "shape", ()))

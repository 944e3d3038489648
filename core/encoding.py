"""Encodes the media of a step: embeddings for the places of a prompt, states for a decoder to attend over.

An item's failure is its own request's; the others go on in the same step.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdk.multimodal.fields import FieldValue, join_items
from sdk.multimodal.processor import ProcessedItem

from .cache.media import EncoderCache
from .cache.memory import apart
from .cache.states import EncoderStates
from .errors import EngineError, PluginRuntimeError
from .request import Request
from .scheduler import StepPlan

Failures = dict[int, tuple[Request, EngineError]]


@dataclass(frozen=True)
class Job:
    """One item of one request to encode; `index` is its place in the request's items, None for what a decoder attends over."""

    request: Request
    index: int | None

    @property
    def item(self) -> ProcessedItem:
        """The item."""
        item = self.request.encoder_item if self.index is None else self.request.items[self.index]
        assert item is not None
        return item

    @property
    def hook(self) -> str:
        """Who encodes it."""
        return "encode" if self.index is None else "get_multimodal_embeddings"

    @property
    def name(self) -> str:
        """What to call it in errors."""
        return f"{self.item.modality} {self.item.placeholder.index}"


class MediaEncoder:
    """Calls a model's encoder for the items of a step.

    Args:
        model: Filled and bound.
        cache: Where embeddings are kept for those who bring the same media later.
        states: Where encoder states are kept, for a model with cross-attention.
        hidden_size: Width of the language model.
        plugin: What to call the plugin in errors.
        dtype: Of the activations.
        device: Where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        cache: EncoderCache,
        states: EncoderStates | None,
        hidden_size: int,
        plugin: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.model, self.cache, self.states = model, cache, states
        self.hidden_size, self.plugin, self.dtype, self.device = hidden_size, plugin, dtype, device
        self.seconds = 0.0
        """Spent here so far."""

    def encode(self, plan: StepPlan) -> list[tuple[Request, EngineError]]:
        """Encode what a plan says, items of a modality together and equal ones once; returns whose items failed."""
        start = time.perf_counter()
        failed = self._encode(plan)
        self.seconds += time.perf_counter() - start
        return failed

    def _encode(self, plan: StepPlan) -> list[tuple[Request, EngineError]]:
        waiting: dict[tuple[str, str], list[Job]] = defaultdict(list)
        first: dict[bytes, Job] = {}
        repeated: list[tuple[Job, Job]] = []
        for job in _jobs(plan):
            item = job.item
            if item.embeddings is not None:
                self._keep(job, item.embeddings.to(self.device, self.dtype))
            elif item.key and item.key in first and job.index is not None:
                repeated.append((job, first[item.key]))
            else:
                waiting[job.hook, item.modality].append(job)
                first[item.key] = job
        failed: Failures = {}
        for jobs in waiting.values():
            for batch in same_arguments(jobs):
                self._encode_batch(batch, failed)
        for job, leader in repeated:
            assert job.index is not None
            assert leader.index is not None
            rows = leader.request.encoded.get(leader.index)  # None when it failed: everybody has a fault of their own
            if rows is None:
                self._encode_batch([job], failed)
            else:
                job.request.encoded[job.index] = rows
        return list(failed.values())

    def _encode_batch(self, jobs: Sequence[Job], failed: Failures) -> None:
        """Encode items that go together; when that fails, each request's by themselves, to find whose fault it is."""
        try:
            for job, rows in zip(jobs, self._checked(jobs, self.call(jobs))):
                self._keep(job, rows)
        except Exception as e:
            requests = list({id(job.request): job.request for job in jobs}.values())
            if len(requests) > 1:
                for request in requests:
                    self._encode_batch([job for job in jobs if job.request is request], failed)
                return
            failed[id(requests[0])] = (requests[0], self._error(e, jobs[0]))

    def call(self, jobs: Sequence[Job]) -> Any:
        """Call the plugin's encoder for items that go together."""
        kwargs = join_items([job.item.kwargs for job in jobs])
        fields = jobs[0].item.kwargs
        return getattr(self.model, jobs[0].hook)(
            **{name: self._to_device(value, fields[name].field.kind == "shared") for name, value in kwargs.items()}
        )

    def _keep(self, job: Job, rows: Tensor) -> None:
        """Put what an item became where the step finds it."""
        if job.index is None:
            assert self.states is not None
            self.states.write(job.request.state, rows)
            job.request.state_len = len(rows)
            return
        if job.item.embeddings is None:
            rows = apart(rows)  # held by the request for a while, and by the cache for long
            if job.item.key:
                self.cache.put(job.item.key, rows)
        job.request.encoded[job.index] = rows

    def _to_device(self, value: Any, kept: bool = False) -> Any:
        """A value where the model is. What others will be given too (`kept`: it was not put together for this call) goes as a
        copy: an encoder that writes to its arguments must not change what is remembered."""
        if isinstance(value, list):
            return [self._to_device(v, kept=True) for v in value]
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype if value.is_floating_point() else value.dtype, copy=kept)
        return value

    def _checked(self, jobs: Sequence[Job], embeddings: Any) -> list[Tensor]:
        """What the encoder returned, as one `(rows, hidden)` for each item, exactly as many as their placeholders take."""
        if embeddings is None or not isinstance(embeddings, (Tensor, list, tuple)):
            raise _Broken(f"returned {type(embeddings).__name__} for {len(jobs)} items")
        if len(embeddings) != len(jobs):
            shape = f" {tuple(embeddings.shape)}" if isinstance(embeddings, Tensor) else ""
            raise _Broken(
                f"expected embeddings of {len(jobs)} items, got a {type(embeddings).__name__}{shape} of {len(embeddings)}"
            )
        for n, (job, e) in enumerate(zip(jobs, embeddings)):
            fault = self._fault_of_shape(job, e)
            if fault:
                got = f"{e.dtype} {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__
                raise _Broken(f"{job.name} (item {n} of the batch): expected {fault}, got {got}")
            if not torch.isfinite(e).all():
                raise _Broken(f"{job.name}: embeddings hold NaN or infinity", "numerical_error")
        return [e.detach().to(self.device, self.dtype) for e in embeddings]

    def _fault_of_shape(self, job: Job, e: Any) -> str | None:
        """What was expected of an item's rows; None when they are so."""
        floats = isinstance(e, Tensor) and e.is_floating_point()
        if job.index is None:
            assert self.states is not None
            right = floats and e.ndim == 2 and 0 < len(e) <= self.states.max_rows
            return None if right else f"1 to {self.states.max_rows} rows of states"
        wanted = (job.item.placeholder.num_embeds, self.hidden_size)
        return None if floats and tuple(e.shape) == wanted else str(wanted)

    def _error(self, e: Exception, job: Job) -> EngineError:
        if isinstance(e, EngineError):
            return e
        code = e.code if isinstance(e, _Broken) else None
        message = str(e) if isinstance(e, _Broken) else f"{type(e).__name__}: {e}"
        error = PluginRuntimeError(
            message, plugin=self.plugin, hook=job.hook, request_id=job.request.request_id, code=code
        )
        error.__cause__ = e
        return error


def _jobs(plan: StepPlan) -> Iterator[Job]:
    for s in plan:
        if s.encode_state:
            yield Job(s.request, None)
        for i in s.encode:
            yield Job(s.request, i)


class _Broken(Exception):
    """The encoder returned what breaks its contract."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


def same_arguments(jobs: Sequence[Job]) -> list[list[Job]]:
    """Items that bring the same tensors of the same shapes go to the encoder together."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple((n, _kind(f)) for n, f in job.item.kwargs.items()), []).append(job)
    return list(groups.values())


def _kind(value: FieldValue) -> object:
    """What two items' values must have in common to go together: the shape; of a shared value, the value itself."""
    return id(value.value) if value.field.kind == "shared" else tuple(getattr(value.value, "shape", ()))

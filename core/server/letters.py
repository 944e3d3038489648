"""Jobs on their way to the engine, and what becomes of them on its way back: engine objects ↔ structs of `wire.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
import torch

from sdk.multimodal.fields import FieldValue, MultiModalFieldConfig
from sdk.multimodal.processor import ProcessedItem, ProcessedPrompt
from sdk.multimodal.updates import PlaceholderRange
from sdk.pooling import PoolingTask

from ..inputs import ProcessedInput
from ..jobs import Job
from ..outputs import Logprob
from ..pooling import PoolingParams
from ..request import Request
from ..sampling import SamplingParams, StructuredOutputs
from ..tools import FORMATS, ToolParser
from . import wire
from .faults import from_fault, to_fault
from .processors import read_processor, write_processor

_DEFAULTS = SamplingParams()
_PARAMS = tuple(f.name for f in fields(SamplingParams) if f.init)


# ---- jobs -----------------------------------------------------------------------------------------------------------


def write_job(key: int, job: Job, remaining: float | None) -> wire.Add:
    """A job for the engine.

    Args:
        key: Number of its first sequence.
        job: As `JobMaker` made it.
        remaining: Seconds until its deadline.
    """
    first = job.requests[0]
    return wire.Add(
        key=key,
        job_id=first.request_id.rpartition("-")[0],
        token_ids=first.token_ids,
        items=[_item(item) for item in first.items],
        encoder_item=_item(first.encoder_item) if first.encoder_item is not None else None,
        params=write_params(job.params),
        priority=first.priority,
        cache_salt=first.cache_salt.decode(),
        cross_attention_heads=list(first.cross_attention_heads),
        remaining=remaining,
        pooling=write_pooling(first.pooling) if first.pooling is not None else None,
        token_types=tuple(first.token_types),
    )


def read_job(add: wire.Add) -> tuple[ProcessedInput, SamplingParams]:
    """What `JobMaker.make` takes."""
    prompt = _read_items(add.token_ids, add.items, add.encoder_item)
    made = ProcessedInput(
        None,
        prompt,
        add.cache_salt,
        cross_attention_heads=tuple((a, b) for a, b in add.cross_attention_heads),
        pooling=read_pooling(add.pooling) if add.pooling is not None else None,
        token_types=add.token_types,
    )
    return made, read_params(add.params)


def write_prompt(made: ProcessedInput) -> wire.Made:
    """A processed prompt."""
    prompt, tools = made.prompt, made.tools
    return wire.Made(
        text=made.text,
        token_ids=prompt.prompt_token_ids,
        items=[_item(item) for item in prompt.items],
        encoder_item=_item(prompt.encoder_item) if prompt.encoder_item is not None else None,
        cache_salt=made.cache_salt,
        cross_attention_heads=list(made.cross_attention_heads),
        tool_form=tools.form.marker if tools is not None else None,
        tool_names=sorted(tools.names) if tools is not None else [],
        token_types=tuple(made.token_types),
    )


def read_prompt(made: wire.Made, tokenizer: Any) -> ProcessedInput:
    """A processed prompt; the parser of its tools reads with `tokenizer`."""
    form = next((form for form in FORMATS if form.marker == made.tool_form), None)
    return ProcessedInput(
        made.text,
        _read_items(made.token_ids, made.items, made.encoder_item),
        made.cache_salt,
        ToolParser(form, made.tool_names, tokenizer) if form is not None else None,
        tuple((layer, head) for layer, head in made.cross_attention_heads),
        token_types=made.token_types,
    )


def write_pooling(params: PoolingParams) -> wire.Pooling:
    """What is made of a prompt."""
    return wire.Pooling(params.task, params.dimensions, params.normalize, params.truncate)


def read_pooling(written: wire.Pooling) -> PoolingParams:
    """The same, checked as anybody's."""
    task = cast("PoolingTask", written.task)
    return PoolingParams(task, written.dimensions, written.normalize, written.truncate)


def write_params(params: SamplingParams) -> dict[str, Any]:
    """What of the parameters is not as it is by default.

    Raises:
        InvalidRequestError: They hold functions, which stay in their process.
    """
    values = {name: getattr(params, name) for name in _PARAMS if name != "output_kind"}
    found = {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)}
    if params.logits_processors:
        found["logits_processors"] = [write_processor(processor) for processor in params.logits_processors]
    if params.structured_outputs is not None:
        held_to, source = params.structured_outputs, params.structured_outputs.source
        found["structured_outputs"] = (
            {source.kind: source.text} if held_to.choice is None else {"choice": held_to.choice}
        )
    return found


def read_params(values: dict[str, Any]) -> SamplingParams:
    """The parameters, checked as anybody's."""
    if "structured_outputs" in values:
        values = {**values, "structured_outputs": StructuredOutputs.from_mapping(values["structured_outputs"])}
    if "logits_processors" in values:
        values = {**values, "logits_processors": [read_processor(written) for written in values["logits_processors"]]}
    return SamplingParams.from_mapping(values)


def _item(item: ProcessedItem) -> wire.Item:
    place = item.placeholder
    return wire.Item(
        modality=place.modality,
        index=place.index,
        offset=place.offset,
        length=place.length,
        mask=np.packbits(place.mask).tobytes(),
        # Of a field, an item that stands alone needs its kind: how it falls into items is past.
        kwargs={name: (value.field.kind, wire.as_it_is(value.value)) for name, value in item.kwargs.items()},
        embeddings=item.embeddings,
        key=item.key,
    )


def _read_items(ids: list[int], items: Sequence[wire.Item], encoder_item: wire.Item | None) -> ProcessedPrompt:
    encoded = _read_item(encoder_item) if encoder_item is not None else None
    return ProcessedPrompt(ids, tuple(_read_item(item) for item in items), encoded)


def _read_item(item: wire.Item) -> ProcessedItem:
    mask = np.unpackbits(np.frombuffer(item.mask, dtype=np.uint8), count=item.length).astype(np.bool_)
    place = PlaceholderRange(item.modality, item.index, item.offset, item.length, mask)
    kwargs = {
        name: FieldValue(value, MultiModalFieldConfig(item.modality, kind))
        for name, (kind, value) in item.kwargs.items()
    }
    return ProcessedItem(kwargs, place, item.embeddings, item.key)


# ---- what becomes of them -------------------------------------------------------------------------------------------


def write_candidates(found: Iterable[dict[int, Logprob]]) -> list[wire.Candidates]:
    """Log-probabilities without the tokens' texts, which the other end can make."""
    return [[(token, one.logprob, one.rank) for token, one in at.items()] for at in found]


def read_candidates(found: Sequence[wire.Candidates], text: Any) -> list[dict[int, Logprob]]:
    """Log-probabilities; `text` makes the text of a token."""
    return [{token: Logprob(value, rank, text(token)) for token, value, rank in at} for at in found]


def write_end(request: Request) -> wire.End:
    """How a sequence ended."""
    times, seen = request.metrics, request.cross_attention
    return wire.End(
        finish_reason=request.finish_reason,
        stop_reason=request.stop_reason,
        fault=to_fault(request.error) if request.error is not None else None,
        arrival_time=times.arrival_time,
        first_scheduled_time=times.first_scheduled_time,
        first_token_time=times.first_token_time,
        finished_time=times.finished_time,
        preemptions=times.preemptions,
        cross_attention=seen,
        pooled=request.pooled,
    )


def read_end(end: wire.End, request: Request) -> None:
    """Book the end of a sequence."""
    times = request.metrics
    request.finish_reason, request.stop_reason = end.finish_reason, end.stop_reason
    request.error = from_fault(end.fault) if end.fault is not None else None
    times.arrival_time, times.first_scheduled_time = end.arrival_time, end.first_scheduled_time
    times.first_token_time, times.finished_time = end.first_token_time, end.finished_time
    times.preemptions = end.preemptions
    request.pooled = end.pooled
    if end.cross_attention is not None:
        request.cross_attention = torch.as_tensor(end.cross_attention)

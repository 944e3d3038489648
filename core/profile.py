"""What media cost, told by the plugin's own worst case: tokens of an item, and the memory of the largest step, by running it."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch

from sdk.multimodal.processor import BaseMultiModalProcessor, ProcessedItem, ProcessedPrompt

from .cache.pages import PagePool
from .config import EngineConfig
from .plan import EnginePlan, MediaPlan
from .request import Request
from .runner import Runner
from .sampling import SamplingParams
from .scheduler import Scheduled

logger = logging.getLogger(__name__)
Processor = BaseMultiModalProcessor[Any]


def media_plans(processor: Processor | None, config: EngineConfig, length: int) -> tuple[MediaPlan, ...]:
    """What to plan for each modality: the analytic worst case; where a plugin tells none, its dummy inputs processed.

    Args:
        processor: Of the model; None: it takes text alone.
        config: The options.
        length: Longest sequence.
    """
    if processor is None:
        return ()
    plans = []
    for modality, own in processor.info.get_supported_mm_limits().items():
        asked = config.limit_mm_per_prompt.get(modality)
        limit = min((n for n in (asked, own) if n is not None), default=None)
        tokens = _item_tokens(processor, modality, length) if limit != 0 else None
        plans.append(MediaPlan(modality, limit, tokens, encoder=modality == processor.encoder_modality))
    return tuple(plans)


def _item_tokens(processor: Processor, modality: str, length: int) -> int | None:
    counts = {modality: 1}
    try:
        told: Mapping[str, int] = processor.info.get_mm_max_tokens_per_item(length, counts)
        if modality in told:
            return int(told[modality])
        return max(item.placeholder.length for item in dummy_prompt(processor, counts, length).items)
    except Exception as e:  # a plugin's hooks may raise whatever they like; its requests will tell what is wrong
        logger.warning("how many tokens an item of %r may take is unknown: %s: %s", modality, type(e).__name__, e)
        return None


def dummy_prompt(processor: Processor, counts: Mapping[str, int], length: int) -> ProcessedPrompt:
    """The plugin's worst-case prompt, processed.

    Args:
        processor: Of the model.
        counts: Modality → items.
        length: Longest sequence.
    """
    text = processor.dummy_inputs.get_dummy_text(counts)
    return processor.apply(text, processor.dummy_inputs.get_dummy_mm_data(length, counts))


def measure_step(
    runner: Runner, pool: PagePool, processor: Processor | None, plan: EnginePlan, *, filler: int = 0
) -> int:
    """Run the largest step there can be, and measure it.

    Args:
        runner: Of a bound model; nothing else runs.
        pool: Its pages, enough for `plan.step_tokens` in as many sequences as there may be.
        processor: Of the model; None: it takes text alone.
        plan: What is allowed.
        filler: A token id that means nothing special.

    Returns:
        The most bytes that were allocated at a time besides what was there before. On a CPU the growth of the process's peak,
        which is too small where it has once been larger.

    Raises:
        EngineError: The plugin's own worst case fails.
    """
    requests = _largest_step(processor, plan, filler)
    meter = _PeakMeter(runner.device)
    held: list[int] = []
    try:
        scheduled = []
        left = plan.step_tokens
        for slot, request in enumerate(requests):
            if plan.states is not None:  # those beyond what a step encodes attend over what the others encode
                request.state, request.state_len = 1 + slot % plan.items_per_step, plan.states.rows
            count = min(len(request.token_ids), left)
            pages = pool.take(pool.pages_for(count))
            if pages is None:
                break
            held += pages
            request.slot, request.pages = slot, pages
            encode = tuple(i for i in range(len(request.items)) if request.items[i].placeholder.offset < count)
            scheduled.append(Scheduled(request, 0, count, encode, encode_state=slot < plan.items_per_step))
            left -= count
        result = runner.run(scheduled, every_row=False)
        for _, error in result.failed:
            raise error
        if result.logits is not None:  # a step may sample every sequence: as many rows at once, and a float32 copy
            rows = result.logits.new_empty(plan.max_num_seqs, result.logits.shape[1]).float()
            torch.softmax(rows, dim=-1)
    finally:
        pool.release(held)
    return meter.peak()


def _largest_step(processor: Processor | None, plan: EnginePlan, filler: int) -> list[Request]:
    """Sequences that fill a step: media up to the encoder's budget, then text."""
    requests: list[Request] = []
    left = plan.step_tokens
    heard: ProcessedItem | None = None
    for media in plan.media if processor is not None else ():
        if media.limit == 0 or not media.item_tokens:
            continue
        assert processor is not None
        if media.encoder:
            heard = dummy_prompt(processor, {media.modality: 1}, plan.max_model_len).encoder_item
            continue
        prompt = dummy_prompt(processor, {media.modality: 1}, plan.max_model_len)
        if len(prompt.prompt_token_ids) > plan.max_model_len:
            continue  # no prompt can hold such an item
        budget = plan.encoder_tokens
        while left > 0 and len(requests) < plan.max_num_seqs and (budget >= media.item_tokens or not requests):
            requests.append(_request(prompt.prompt_token_ids, prompt.items, heard))
            left -= len(prompt.prompt_token_ids)
            budget -= media.item_tokens
    while left > 0 and len(requests) < plan.max_num_seqs:
        count = min(left, plan.max_model_len)
        requests.append(_request([filler] * count, (), heard))
        left -= count
    return requests


def _request(token_ids: list[int], items: tuple[ProcessedItem, ...], heard: ProcessedItem | None) -> Request:
    return Request(
        request_id="profile",
        token_ids=list(token_ids),
        prompt_len=len(token_ids),
        params=SamplingParams(temperature=0.0, max_tokens=1),
        max_tokens=1,
        eos_token_ids=frozenset(),
        seed=0,
        items=items,
        encoder_item=heard,
    )


class _PeakMeter:
    """The most memory in use since it was made, less what was in use then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else _peak_resident()

    def peak(self) -> int:
        """In bytes."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return _peak_resident() - self.before


def _peak_resident() -> int:
    """Of this process; the system counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

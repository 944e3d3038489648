"""`EnginePlan`: what start-up decided, as numbers. Made from a blueprint, so that it can be told without loading anything."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .bind import attention_layers, page_shapes, slot_bytes, state_bytes, state_layers
from .blueprint import Blueprint
from .errors import EngineError, InvalidConfigError, MemoryProfileError
from .memory import CACHE_SHARE, MemoryPlan, activation_bytes, available_bytes, weights_bytes

logger = logging.getLogger(__name__)
STATES_SHARE = 0.25
"""Of what weights and activations leave, the most that encoder states may take, and that slots may take beside pages."""


@dataclass(frozen=True)
class MediaPlan:
    """What is planned for a modality.

    Attributes:
        modality: Which.
        limit: Most items in a prompt; None: any number.
        item_tokens: Most tokens of one item: a larger one is refused. None: the plugin does not tell.
        encoder: Whether an encoder takes an item: `item_tokens` are the states that the decoder attends over, none of the prompt.
    """

    modality: str
    limit: int | None
    item_tokens: int | None
    encoder: bool = False


@dataclass(frozen=True)
class StatesPlan:
    """Room for what cross-attention keeps of requests.

    Attributes:
        count: Requests that may run at a time with an item of their own.
        rows: Most encoder states of an item.
        bytes_each: Their keys and values in all layers.
    """

    count: int
    rows: int
    bytes_each: int


@dataclass(frozen=True)
class SlotsPlan:
    """Room for what state layers keep of sequences.

    Attributes:
        count: Sequences that may run at a time.
        bytes_each: Of one of them in all layers, however long it is.
        kinds: Kind of state → how many layers keep it.
    """

    count: int
    bytes_each: int
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class QuantizationPlan:
    """What is done to the weights.

    Attributes:
        scheme: Its name.
        layers: How many layers it makes smaller.
        bytes: What their weights take then.
        left: Layers with weights that stay as they are.
    """

    scheme: str
    layers: int
    bytes: int
    left: tuple[str, ...]


@dataclass(frozen=True)
class EnginePlan:
    """What start-up decided, for banners and bug reports.

    Attributes:
        architecture, plugin: What runs, and who brought it.
        dtype, device: How.
        max_model_len: Longest sequence; less than `asked_length` where the pool has no room for more.
        asked_length: What the user asked for, or what the model was trained for.
        max_num_seqs: Most sequences in a step; fewer than asked for where there is no room for their states.
        step_tokens: Most tokens in a step.
        encoder_tokens: Most tokens of media encoded in a step; a single larger item still passes, alone.
        num_pages, page_size: The pool. Where no layer keeps K/V, a page is a sequence and takes nothing.
        bytes_per_token: K/V of one token in all layers.
        attention: Kind of attention → how many layers of it keep K/V.
        media: Each modality that the model takes.
        left_out: Parts of the model that are not loaded.
        memory: Where the memory goes.
        states: Room for encoder states; None for a model without cross-attention.
        slots: Room for the states of sequences; None for a model without state layers.
        quantization: What is done to the weights; None: nothing.
        without_effect: Options that were given and change nothing, since no layer keeps K/V.
    """

    architecture: str
    plugin: str
    dtype: str
    device: str
    max_model_len: int
    asked_length: int
    max_num_seqs: int
    step_tokens: int
    encoder_tokens: int
    num_pages: int
    page_size: int
    bytes_per_token: int
    attention: Mapping[str, int]
    media: tuple[MediaPlan, ...]
    left_out: tuple[str, ...]
    memory: MemoryPlan
    states: StatesPlan | None = None
    slots: SlotsPlan | None = None
    quantization: QuantizationPlan | None = None
    without_effect: tuple[str, ...] = ()

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the pool holds."""
        return self.num_pages * self.page_size

    @property
    def full_sequences(self) -> float:
        """Sequences of the longest length that the pool holds at a time."""
        pages_each = -(-self.max_model_len // self.page_size)
        return self.num_pages / pages_each if pages_each else 0.0

    @property
    def items_per_step(self) -> int:
        """Items for a decoder to attend over that a step encodes at most; 0 for a model without cross-attention."""
        return 0 if self.states is None else max(1, min(self.encoder_tokens // self.states.rows, self.max_num_seqs))

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        derived = {"capacity_tokens": self.capacity_tokens, "full_sequences": round(self.full_sequences, 2)}
        return {**asdict(self), **derived}

    def lines(self) -> list[tuple[str, str]]:
        """The plan for people: a few names with what they come to."""
        m = self.memory
        kinds = ", ".join(f"{count} × {kind}" for kind, count in self.attention.items()) or "none"
        made = "measured" if m.measured else "estimated"
        lines = [
            ("model", f"{self.architecture} by {self.plugin}, {self.dtype} on {self.device}"),
            ("weights", size(m.weights)),
            *([("quantized", self._quantized(self.quantization))] if self.quantization is not None else []),
            ("attention", f"{kinds}; {size(self.bytes_per_token)} of K/V a token" if self.attention else "none: no K/V"),
            *([("state", self._state(self.slots))] if self.slots is not None else []),
            ("step", f"{self.step_tokens} tokens, {self.max_num_seqs} sequences; {size(m.activations)} ({made})"),
            *((f"{p.modality}s", self._media(p)) for p in self.media),
            *([("states", f"{self.states.count} of {self.states.rows} rows, {size(self.states.bytes_each)} each")]
              if self.states is not None else []),
        ]  # fmt: skip
        if self.attention:
            pool = f"{self.num_pages} pages of {self.page_size} tokens"
            digits = 1 if self.full_sequences < 10 else 0
            room = f"{self.full_sequences:.{digits}f} sequences of {self.max_model_len}"
            lines.append(("cache", f"{size(m.cache)} of {size(m.available)} free: {pool}, {room}"))
        if self.without_effect:
            lines.append(("unused", f"{', '.join(self.without_effect)}: no layer keeps K/V"))
        return lines

    def _state(self, plan: SlotsPlan) -> str:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in plan.kinds.items())
        each = f"{size(plan.bytes_each)} a sequence, however long"
        return f"{kinds}; {each}, {plan.count} sequences in {size(plan.count * plan.bytes_each)}"

    def _quantized(self, plan: QuantizationPlan) -> str:
        left = f"; as they are: {', '.join(plan.left)}" if plan.left else ""
        return f"{plan.scheme}: {plan.layers} layers in {size(plan.bytes)}{left}"

    def _media(self, plan: MediaPlan) -> str:
        if plan.limit == 0:
            gone = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
            return f"none allowed{gone}"
        tokens = "an unknown number of" if plan.item_tokens is None else f"up to {plan.item_tokens}"
        most = "any number" if plan.limit is None else str(plan.limit)
        unit = "encoder states" if plan.encoder else "tokens"
        return f"{tokens} {unit} each, {most} a prompt, {self.encoder_tokens} encoded a step"


def make_plan(blueprint: Blueprint, media: Sequence[MediaPlan] = (), measured: MemoryPlan | None = None) -> EnginePlan:
    """Decide lengths and sizes. Never refuses: see `refusal`.

    Args:
        blueprint: The model.
        media: What `media_plans` told of its media.
        measured: What a profile run found, in the place of arithmetic.
    """
    config, length = blueprint.config, blueprint.length
    per_token = sum(s.bytes_per_token(blueprint.dtype) for s in page_shapes(blueprint.model).values())
    encoder_tokens = config.max_num_batched_tokens if any(p.limit != 0 for p in media) else 0
    memory = measured or _estimated(blueprint, encoder_tokens, media)
    states = _states(blueprint, media, memory)
    slots = _slots(blueprint, per_token, memory)
    kept = sum(p.count * p.bytes_each for p in (states, slots) if p is not None)
    memory = replace(memory, states=kept)
    max_num_seqs = config.max_num_seqs if slots is None else slots.count
    if per_token:
        page_size = config.block_size
        num_pages, page_bytes = _num_pages(blueprint, per_token, memory, max_num_seqs)
    else:
        page_size, num_pages, page_bytes = length, max_num_seqs, 0
    given = [name for name in ("block_size", "kv_cache_bytes") if name in config.model_fields_set]
    max_model_len = min(length, num_pages * page_size)
    whole = max_model_len if blueprint.capabilities.chunked_prefill == "no" else 0
    kinds = Counter(
        "full" if layer.sliding_window is None else f"sliding ({layer.sliding_window})"
        for layer in attention_layers(blueprint.model).values()
    )
    return EnginePlan(
        architecture=blueprint.plugin.architecture.name,
        plugin=blueprint.plugin.describe(),
        dtype=str(blueprint.dtype).removeprefix("torch."),
        device=str(blueprint.device),
        max_model_len=max_model_len,
        asked_length=length,
        max_num_seqs=max_num_seqs,
        step_tokens=max(config.max_num_batched_tokens, whole),
        encoder_tokens=encoder_tokens,
        num_pages=num_pages,
        page_size=page_size,
        bytes_per_token=per_token,
        attention=dict(kinds),
        media=tuple(media),
        left_out=blueprint.left_out.paths,
        memory=replace(memory, cache=num_pages * page_bytes),
        states=states,
        slots=slots,
        quantization=_quantization(blueprint),
        without_effect=() if per_token else tuple(name for name in given if getattr(config, name) is not None),
    )


def _quantization(blueprint: Blueprint) -> QuantizationPlan | None:
    found = blueprint.quantized
    if found is None:
        return None
    return QuantizationPlan(found.name, len(found.methods), sum(found.bytes.values()), found.left)


def _states(blueprint: Blueprint, media: Sequence[MediaPlan], memory: MemoryPlan) -> StatesPlan | None:
    """One for each request that may run, or as many as fit; none where nothing attends over them or their size is unknown."""
    rows = next((p.item_tokens for p in media if p.encoder), None)
    each = state_bytes(blueprint.model, rows or 0, blueprint.dtype)
    if not rows or not each:
        return None
    fitting = int(memory.left * STATES_SHARE) // each
    return StatesPlan(max(1, min(blueprint.config.max_num_seqs, fitting)), rows, each)


def _slots(blueprint: Blueprint, per_token: int, memory: MemoryPlan) -> SlotsPlan | None:
    """One for each sequence that may run, or as many as fit; none where no layer keeps a state."""
    each = slot_bytes(blueprint.model, blueprint.dtype)
    if not each:
        return None
    share = STATES_SHARE if per_token else CACHE_SHARE[blueprint.device.type]
    count = max(1, min(blueprint.config.max_num_seqs, int(memory.left * share) // each))
    kinds: Counter[str] = Counter(layer.kind for layer in state_layers(blueprint.model).values())
    return SlotsPlan(count, each, dict(kinds))


def _estimated(blueprint: Blueprint, encoder_tokens: int, media: Sequence[MediaPlan]) -> MemoryPlan:
    config = blueprint.config
    whole = blueprint.length if blueprint.capabilities.chunked_prefill == "no" else 0
    largest = max([encoder_tokens, *(p.item_tokens or 0 for p in media if p.limit != 0)])
    activations = activation_bytes(
        blueprint.model,
        blueprint.dtype,
        step_tokens=max(config.max_num_batched_tokens, whole),
        step_sequences=config.max_num_seqs,
        encoder_tokens=largest,
    )
    return MemoryPlan(
        available_bytes(blueprint.device),
        weights_bytes(blueprint.model, blueprint.dtype, blueprint.quantized),
        activations,
        cache=0,
    )


def _num_pages(blueprint: Blueprint, per_token: int, memory: MemoryPlan, max_num_seqs: int) -> tuple[int, int]:
    """How many pages there are, and the bytes of one."""
    config = blueprint.config
    page_bytes = per_token * config.block_size
    if config.kv_cache_bytes is not None:
        return config.kv_cache_bytes // page_bytes, page_bytes
    share = int((memory.left - memory.states) * CACHE_SHARE[blueprint.device.type]) // page_bytes
    wanted = -(-blueprint.length // config.block_size) * max_num_seqs
    return max(0, min(wanted, share)), page_bytes


def refusal(plan: EnginePlan, blueprint: Blueprint) -> EngineError | None:
    """Why the model cannot be loaded by this plan, with the numbers; None where it can."""
    m, needed = plan.memory, -(-plan.asked_length // plan.page_size)
    sums = (
        f"weights {size(m.weights)}, activations {size(m.activations)}, K/V {size(m.cache + m.states)}; "
        f"{size(m.available)} are free on {plan.device}"
    )
    encoded = next((p for p in plan.media if p.encoder), None)
    if encoded is not None and encoded.limit == 0:
        return InvalidConfigError(
            f"{plan.architecture} says nothing without {encoded.modality}; leave it out of limit_mm_per_prompt",
            param="limit_mm_per_prompt",
        )
    if m.left - m.states < 0:
        return MemoryProfileError(
            f"the model does not fit: {sums}. Use a smaller dtype, lower max_num_batched_tokens, or a larger machine",
            param="model",
        )
    if m.cache > m.left - m.states:
        return MemoryProfileError(f"the page pool does not fit: {sums}. Lower kv_cache_bytes", param="kv_cache_bytes")
    if plan.num_pages < 1 or (blueprint.config.max_model_len is not None and plan.num_pages < needed):
        return InvalidConfigError(
            f"the page pool has room for {plan.capacity_tokens} tokens, but one sequence of max_model_len={plan.asked_length} "
            f"needs {needed * plan.page_size} ({plan.bytes_per_token} bytes a token); "
            f"raise kv_cache_bytes or lower max_model_len ({sums})",
            param="kv_cache_bytes",
        )
    return None


def announce(plan: EnginePlan, *, quiet: bool) -> None:
    """Show the plan on standard error where somebody is there to see it; in the log otherwise."""
    text = "\n".join(f"{name:<10} {value}" for name, value in plan.lines())
    if not quiet and sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
    else:
        logger.info("starting:\n%s", text)


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"

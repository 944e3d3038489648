"""One sequence on its way through the engine: its tokens, its pages, how far it has come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdk.multimodal.processor import ProcessedItem

from .errors import EngineError
from .logits.rules import LogitsState
from .outputs import Logprob, RequestMetrics
from .sampling import SamplingParams

if TYPE_CHECKING:
    from .pooling.params import PoolingParams


class Status(Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Request:
    """One sequence: one of the `n` completions of a prompt.

    Attributes:
        request_id: Unique within the engine.
        token_ids: Prompt and output; grows by one each time it is sampled.
        prompt_len: How many of them are the prompt.
        params: How its tokens are chosen.
        max_tokens: Most output tokens, once the context is taken into account.
        eos_token_ids: Tokens that end it.
        items: Media in the prompt, in order of place.
        num_computed: Tokens whose K/V is in its pages.
        pages: The pages, in order.
        slot: Row of the runner's tables while it runs, -1 otherwise.
        encoded: Index in `items` → embeddings, kept until the prompt has passed the item.
        seed: 64 bits that its draws come from.
        priority: The lower, the earlier its turn; those of equal priority take turns by arrival.
        order: Its place in the order of arrival.
        cache_salt: Only requests of one salt share pages.
        reads_cache: Whether pages that others computed may serve it; not where every row of the prompt is asked for.
        page_keys: Keys of its full pages, see `core.cache.prefix`.
        num_cached: Tokens of the prompt that were at hand when it was first admitted.
        encoder_item: What the model's encoder takes, for a model with cross-attention.
        state: Where the projected encoder states are while it runs, -1 otherwise.
        state_len: Rows of them; 0 until they are there.
        cross_attention_heads: (layer, head) of cross-attention whose weights over its prompt are wanted.
        cross_attention: `(heads, prompt tokens, states)`, these weights, as far as the prompt has been computed.
        num_published: Pages that were offered to others.
        admissions: How often it was admitted: once, and again after each preemption.
        restarted_len: How long it was when all of it had to be computed anew; 0: never.
        logits: What it asks of its logits; None where that is nothing.
        prompt_logprobs: Of its prompt's tokens from the second on, as far as they are known.
        pooling: What is made of its prompt in the place of tokens; None: tokens.
        token_types: Which of a pair's texts each token of the prompt is of; empty: all of the first.
        pooled: What was made of it.
    """

    request_id: str
    token_ids: list[int]
    prompt_len: int
    params: SamplingParams
    max_tokens: int
    eos_token_ids: frozenset[int]
    seed: int
    items: Sequence[ProcessedItem] = ()
    encoder_item: ProcessedItem | None = None
    state: int = -1
    state_len: int = 0
    cross_attention_heads: tuple[tuple[int, int], ...] = ()
    cross_attention: Tensor | None = None
    status: Status = Status.WAITING
    num_computed: int = 0
    pages: list[int] = field(default_factory=list)
    slot: int = -1
    encoded: dict[int, Tensor] = field(default_factory=dict)
    priority: int = 0
    order: int = 0
    cache_salt: bytes = b""
    reads_cache: bool = True
    page_keys: list[bytes] = field(default_factory=list)
    num_cached: int = 0
    num_published: int = 0
    admissions: int = 0
    restarted_len: int = 0
    logits: LogitsState | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    pooling: PoolingParams | None = None
    token_types: Sequence[int] = ()
    pooled: NDArray[np.float32] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    error: EngineError | None = None
    metrics: RequestMetrics = field(default_factory=RequestMetrics)

    @property
    def output_len(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.prompt_len

    @property
    def output_token_ids(self) -> list[int]:
        """Tokens generated so far."""
        return self.token_ids[self.prompt_len :]

    @property
    def whole_len(self) -> int:
        """Tokens that are seen as one text, whose length counts for each of them: the prompt, or more after a restart."""
        return max(self.prompt_len, self.restarted_len)

    def restart(self) -> None:
        """Compute all of it anew, in the pages it has, as one text: nobody else may hold them."""
        self.restarted_len, self.num_computed = len(self.token_ids), 0
        self.encoded.clear()

    def note_attention(self, at: int, start: int, weights: Tensor) -> None:
        """Keep weights `(tokens, states)` of the wanted head `at`, for the tokens from `start` on."""
        if self.cross_attention is None:
            shape = len(self.cross_attention_heads), self.prompt_len, self.state_len
            self.cross_attention = weights.new_zeros(shape, dtype=torch.float32, device="cpu")
        self.cross_attention[at, start : start + len(weights)] = weights[: max(0, self.prompt_len - start)]

    @property
    def turn(self) -> tuple[int, int]:
        """What sequences are sorted by."""
        return self.priority, self.order

    @property
    def finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status is Status.FINISHED

    def items_between(self, start: int, stop: int) -> range:
        """Indices of the media items that overlap the tokens `start … stop - 1`."""
        first = bisect_right(self.items, start, key=lambda i: i.placeholder.offset + i.placeholder.length)
        return range(first, bisect_left(self.items, stop, lo=first, key=lambda i: i.placeholder.offset))

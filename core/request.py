"""One sequence on its way through the engine: its tokens, its pages, how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from sdk.multimodal.processor import ProcessedItem

from .errors import EngineError
from .outputs import Logprob, RequestMetrics
from .sampling import SamplingParams


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
        restarted_len: How long it was when all of it had to be computed anew; 0: never.
    """

    request_id: str
    token_ids: list[int]
    prompt_len: int
    params: SamplingParams
    max_tokens: int
    eos_token_ids: frozenset[int]
    seed: int
    items: Sequence[ProcessedItem] = ()
    status: Status = Status.WAITING
    num_computed: int = 0
    pages: list[int] = field(default_factory=list)
    slot: int = -1
    encoded: dict[int, Tensor] = field(default_factory=dict)
    restarted_len: int = 0
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
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

    @property
    def finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status is Status.FINISHED

    def items_between(self, start: int, stop: int) -> list[int]:
        """Indices of the media items that overlap the tokens `start … stop - 1`."""
        return [
            i
            for i, item in enumerate(self.items)
            if item.placeholder.offset < stop and item.placeholder.offset + item.placeholder.length > start
        ]

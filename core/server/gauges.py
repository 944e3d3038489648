"""What an engine shows of itself to the outside: levels, which go up and down, and totals, which only grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ..engine import Engine
    from ..request import Request


class Levels(msgspec.Struct, frozen=True, array_like=True):
    """How things stand.

    Attributes:
        waiting, running: Sequences.
        waiting_tokens: Tokens of the sequences that wait.
        pages: How many there are.
        pages_held: Of those, how many sequences hold.
        pages_kept: How many nobody holds, but keep what they contain for others.
        states_held: Encoder states that sequences hold.
        encoder_cache_bytes: Embeddings of media that are kept.
    """

    waiting: int = 0
    running: int = 0
    waiting_tokens: int = 0
    pages: int = 0
    pages_held: int = 0
    pages_kept: int = 0
    states_held: int = 0
    encoder_cache_bytes: int = 0


class Totals(msgspec.Struct, array_like=True):
    """What there has been since the start.

    Attributes:
        steps, step_seconds: Steps of the engine.
        prompt_tokens, cached_tokens: Tokens of the prompts that were begun, and those of them that were at hand.
        output_tokens: Tokens generated.
        preemptions: Sequences that lost their pages.
        encoder_seconds: Within the steps, for media.
        encoder_hits, encoder_misses: Media whose embeddings were at hand, and whose were not.
    """

    steps: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    encoder_seconds: float = 0.0
    encoder_hits: int = 0
    encoder_misses: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class Gauges(msgspec.Struct, frozen=True, array_like=True):
    """Both, and how long the last step took."""

    levels: Levels = Levels()
    totals: Totals = msgspec.field(default_factory=Totals)
    last_step_seconds: float = 0.0


class Meter:
    """Reads an engine's gauges.

    Args:
        engine: Whose.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.totals = Totals()
        self.last_step_seconds = 0.0

    def begun(self, request: Request) -> None:
        """A sequence has been given its first part of a step."""
        self.totals.prompt_tokens += request.prompt_len
        self.totals.cached_tokens += request.num_cached

    def stepped(self, seconds: float, tokens: int) -> None:
        """A step has been done."""
        self.totals.steps += 1
        self.totals.step_seconds += seconds
        self.totals.output_tokens += tokens
        self.last_step_seconds = seconds

    def read(self) -> Gauges:
        """How things stand now."""
        scheduler, pool = self.engine.scheduler, self.engine.pool
        cache, states = scheduler.encoder_cache, scheduler.states
        totals = self.totals
        totals.preemptions = scheduler.num_preemptions
        totals.encoder_seconds = self.engine.runner.encoder.seconds
        totals.encoder_hits, totals.encoder_misses = cache.hits, cache.misses
        levels = Levels(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            waiting_tokens=sum(len(r.token_ids) for r in scheduler.waiting),
            pages=pool.num_pages,
            pages_held=pool.num_pages - pool.num_free,
            pages_kept=pool.num_kept,
            states_held=0 if states is None else states.pool.num_pages - states.pool.num_free,
            encoder_cache_bytes=cache.num_bytes,
        )
        return Gauges(levels, totals, self.last_step_seconds)

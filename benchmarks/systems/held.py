"""What an engine's memory is for, beside which the process's own is seen: weights, and the caches as far as they were used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..cases import Figures


class Held:
    """Follows how far an engine's pools have been used; from outside, as the engine needs no such figure.

    Args:
        engine: `core.engine.Engine`, before its first request.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.pools = [_Watched(engine.pool, (t for pair in engine.pages.values() for t in pair))]
        if engine.states is not None:
            states = (t for pair in engine.states.memory.values() for t in pair)
            self.pools.append(_Watched(engine.scheduler.states.pool, states))

    def figures(self) -> Figures:
        """`weights_mib`, and `cache_mib`: pages, states, and what is kept of media."""
        kept = self.engine.scheduler.encoder_cache.num_bytes + self.engine.inputs.memory.num_bytes
        cache = kept + sum(pool.bytes for pool in self.pools)
        return {"weights_mib": self.engine.plan.memory.weights / 2**20, "cache_mib": cache / 2**20}


class _Watched:
    """A pool gives out its lowest unused page, so the highest one that it gave says how much of its memory was touched."""

    def __init__(self, pool: Any, memory: Iterable[Any]) -> None:
        self.highest, self.page_bytes = 0, sum(tensor[0].nbytes for tensor in memory)
        take = pool.take

        def watched(count: int) -> list[int] | None:
            pages: list[int] | None = take(count)
            self.highest = max([self.highest, *(pages or ())])
            return pages

        pool.take = watched

    @property
    def bytes(self) -> int:
        return self.highest * self.page_bytes

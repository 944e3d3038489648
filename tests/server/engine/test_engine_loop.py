"""The engine process's loop, turned by hand: what it does between two steps, however late what it is sent arrives."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from core import LLM, SamplingParams
from core.jobs import JobMaker
from core.server import wire
from core.server.engine_loop import EngineLoop
from core.server.letters import write_job
from core.server.line import Line

from .conftest import ENDLESS, PATIENCE, prompt_ids

OTHER, LEAVES = 0, 1
"""Keys of sequences."""


class Turned:
    """A loop at one end of a line, and who sends to it at the other.

    Args:
        llm: Whose engine it steps.
        here, there: The two ends.
    """

    def __init__(self, llm: LLM, here: Line, there: Line) -> None:
        self.loop, self._here = EngineLoop(llm.engine, there, PATIENCE), here
        self._inputs, self._maker = llm.engine.inputs, JobMaker(llm.engine)

    def send(self, message: Any) -> None:
        """Send it a command, which it obeys."""
        self._here.send(message)
        assert self.loop.line.socket.poll(PATIENCE * 1000)
        self.loop._hear()

    def add(self, key: int, prompt: Any, params: SamplingParams) -> None:
        """Send it a request."""
        job = self._maker.make(self._maker.next_id(), self._inputs.process(prompt), params, 0)
        self.send(write_job(key, job, None))

    def told(self) -> wire.News:
        """What it says after that."""
        self.loop._tell()
        news: wire.News = self._here.receive(PATIENCE)
        return news


@pytest.fixture
def turned(llama: LLM) -> Iterator[Turned]:
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/line"
        here, there = Line.bind(address, wire.FromEngine), Line.connect(address, wire.ToEngine)
        there.send(wire.Hello())
        assert isinstance(here.receive(PATIENCE), wire.Hello)  # they have found each other
        made = Turned(llama, here, there)
        yield made
        made.send(wire.Abort(list(made.loop._sequences)))
        made.loop._compilers.shutdown()
        for end in (here, there):
            end.close()
        assert made.loop.gauges().levels.pages_held == 0


@pytest.mark.parametrize("seen", [1, 7])
@pytest.mark.parametrize("params", [ENDLESS, replace(ENDLESS, n=3, temperature=1.0, seed=1)], ids=["one", "three"])
def test_R085_who_leaves_frees_the_pages_before_the_next_step(
    turned: Turned, seen: int, params: SamplingParams
) -> None:
    loop = turned.loop
    turned.add(OTHER, prompt_ids(1, 4), ENDLESS)
    loop._step()
    alone = loop.gauges().levels
    turned.add(LEAVES, prompt_ids(0, 40), params)
    for _ in range(seen):
        loop._step()
    before = loop.gauges()
    assert before.levels.running == 1 + params.n
    assert before.levels.pages_held > alone.pages_held
    steps = before.totals.steps
    turned.told()
    gone = list(range(LEAVES, LEAVES + params.n))
    turned.send(wire.Abort(gone))
    news = turned.told()
    assert news.gauges.levels.running == 1
    assert news.gauges.levels.pages_held == alone.pages_held
    assert news.gauges.totals.steps == steps
    assert [(d.key, d.end is not None) for d in news.details] == [(key, True) for key in gone]

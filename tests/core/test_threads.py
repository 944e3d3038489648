"""One engine, several threads: each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core import LLM, SamplingParams
from core.errors import EngineDeadError

from .conftest import prompt_ids
from .gate import PATIENCE

Result = list[tuple[str, list[int], str | None]]


def whole(llm: LLM, prompts: list[Any], params: SamplingParams) -> Result:
    outputs = llm.generate(prompts, params)
    return [(c.text, list(c.token_ids), c.finish_reason) for o in outputs for c in o.outputs]


def streamed(llm: LLM, prompts: list[Any], params: SamplingParams) -> Result:
    order: dict[str, list[tuple[str, list[int], str | None]]] = {}
    for output in llm.generate(prompts, params, stream=True):
        parts = order.setdefault(output.request_id, [("", [], None)] * params.n)
        for c in output.outputs:
            text, ids, ended = parts[c.index]
            assert ended is None, "something came after the end"
            parts[c.index] = (text + c.text, ids + list(c.token_ids), c.finish_reason)
    by_number = sorted(order.items(), key=lambda item: int(item[0].partition("-")[0]))
    return [part for _, parts in by_number for part in parts]


@pytest.mark.parametrize("run", [whole, streamed])
@pytest.mark.parametrize("stop", [None, ["e", "th"]])
def test_R093_threads_share_an_engine(llama: LLM, run: Callable[..., Result], stop: Any) -> None:
    params = SamplingParams(temperature=1.0, seed=4, n=2, max_tokens=12, ignore_eos=True, stop=stop)
    work = [[prompt_ids(10 * t + i, 3 + 5 * i) for i in range(2)] for t in range(3)]
    expected = [run(llama, prompts, params) for prompts in work]
    assert expected == [whole(llama, prompts, params) for prompts in work]
    ready = threading.Barrier(3)

    def one(prompts: list[Any]) -> Result:
        ready.wait(PATIENCE)
        return run(llama, prompts, params)

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(one, work)) == expected


def test_R093_an_engine_that_is_closed_ends_what_other_threads_wait_for(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(str(llama_folder), dtype="float32")
    running, closing, closed, failed = threading.Event(), threading.Event(), threading.Event(), []
    run, step, number = llm.engine.runner.run, llm.engine.step, itertools.count(1)

    def held_run(*args: Any) -> Any:  # it is closed beside the third step, which it waits for
        running.set()
        assert closing.wait(PATIENCE)
        return run(*args)

    def held_step() -> Any:
        match next(number):
            case 3:
                monkeypatch.setattr(llm.engine.runner, "run", held_run)
            case 4:
                assert closed.wait(PATIENCE)
        return step()

    monkeypatch.setattr(llm.engine, "step", held_step)

    def wait() -> None:
        try:
            list(llm.generate(prompt_ids(0, 5), SamplingParams(max_tokens=500, ignore_eos=True), stream=True))
        except EngineDeadError as e:
            failed.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    assert running.wait(PATIENCE)
    closing.set()
    llm.close()
    closed.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    (error,) = failed
    assert "closed" in str(error)
    llm.close()


def test_one_threads_abort_leaves_the_others(llama: LLM) -> None:
    long = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    expected = whole(llama, [prompt_ids(1, 5)], long)
    longer = SamplingParams(temperature=0, max_tokens=450, ignore_eos=True)
    mine = llama.generate(prompt_ids(2, 5), longer, stream=True)
    first = next(mine)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(whole, llama, [prompt_ids(1, 5)], long)
        llama.abort(first.request_id)
        last = list(mine)[-1]
        assert last.outputs[0].finish_reason == "abort"
        assert other.result(PATIENCE) == expected


def test_R093_an_engine_that_is_forgotten_is_freed_and_signals_are_left_alone(llama_folder: Path) -> None:
    handlers = {s: signal.getsignal(s) for s in signal.valid_signals()}
    llm = LLM(str(llama_folder), dtype="float32")
    whole(llm, [prompt_ids(1, 5)], SamplingParams(max_tokens=3))
    assert {s: signal.getsignal(s) for s in signal.valid_signals()} == handlers
    engine, weights = weakref.ref(llm.engine), weakref.ref(next(llm.engine.model.parameters()))
    del llm
    gc.collect()
    assert engine() is None
    assert weights() is None


def test_R093_it_serves_where_an_event_loop_runs(llama: LLM) -> None:
    """As in a notebook."""
    params, prompts = SamplingParams(temperature=0, max_tokens=5), [prompt_ids(1, 5)]

    async def cell() -> tuple[Result, Result]:
        return whole(llama, prompts, params), streamed(llama, prompts, params)

    expected = whole(llama, prompts, params)
    assert asyncio.run(cell()) == (expected, expected)

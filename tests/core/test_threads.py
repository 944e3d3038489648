"""One engine, several threads: each gets what it would have got alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core import LLM, SamplingParams
from core.errors import EngineDeadError

from .conftest import prompt_ids

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
        ready.wait(30)
        return run(llama, prompts, params)

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(one, work)) == expected


def test_R093_an_engine_that_is_closed_ends_what_other_threads_wait_for(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(str(llama_folder), dtype="float32")
    started, failed, step = threading.Event(), [], llm.engine.step
    monkeypatch.setattr(llm.engine, "step", lambda: (time.sleep(0.02), step())[1])  # it has much to do yet

    def wait() -> None:
        try:
            for _ in llm.generate(prompt_ids(0, 5), SamplingParams(max_tokens=500, ignore_eos=True), stream=True):
                started.set()
        except EngineDeadError as e:
            failed.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(60)
    llm.close()
    thread.join(60)
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
        assert other.result(60) == expected

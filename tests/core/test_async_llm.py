"""`AsyncLLM` as asyncio programs use it: the same tokens as `LLM`, and nothing left behind however a request ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core import LLM, AsyncLLM, RequestOutput, RequestOutputKind, SamplingParams
from core.errors import (
    ContextLengthError,
    DrainingError,
    EngineDeadError,
    InvalidRequestError,
    MediaDecodeError,
    OverloadedError,
    RequestTimeoutError,
)

from .conftest import GREEDY, SHORT, picture, prompt_ids, with_pictures
from .gate import PATIENCE, Shared, begun, hold, settle, until

pytestmark = pytest.mark.asyncio
DELTA, FINAL = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY
LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
Result = list[tuple[str, list[int], str | None]]


@pytest.fixture(scope="module")
def shared(llama_folder: Path) -> Iterator[Shared[AsyncLLM]]:
    options: dict[str, Any] = {"dtype": "float32", "block_size": 16, "max_queued_requests": 2000}
    made = Shared(lambda: AsyncLLM(str(llama_folder), **options), lambda llm: llm._thread.close())
    yield made
    made.close()


@pytest_asyncio.fixture
async def allm(shared: Shared[AsyncLLM]) -> AsyncIterator[AsyncLLM]:
    """An engine that every test leaves as it found it."""
    llm = shared.get()
    yield llm
    with shared.checked():
        await settle(llm)
        assert llm.engine.dead is None
        assert_idle(llm)


@pytest.fixture
def fresh(llama_folder: Path) -> Iterator[Callable[..., AsyncLLM]]:
    """Opens engines of a test's own."""
    made: list[AsyncLLM] = []

    def open_one(**options: Any) -> AsyncLLM:
        made.append(AsyncLLM(str(llama_folder), **{"dtype": "float32", "block_size": 16, **options}))
        return made[-1]

    yield open_one
    for llm in made:
        llm._thread.close()


def assert_idle(llm: AsyncLLM) -> None:
    engine = llm.engine
    assert engine.pool.num_free == engine.pool.num_pages
    assert not engine.scheduler.has_work
    assert not engine._requests
    assert not llm._streams
    assert not llm._thread._waiting


async def last(stream: AsyncIterator[RequestOutput]) -> RequestOutput:
    async with asyncio.timeout(PATIENCE):
        outputs = [output async for output in stream]
    return outputs[-1]


def result(output: RequestOutput) -> Result:
    return [(c.text, list(c.token_ids), c.finish_reason) for c in output.outputs]


def expected(llama: LLM, prompt: Any, params: SamplingParams) -> Result:
    return result(llama.generate(prompt, params)[0])


class Clock:
    """The running event loop's time, which a test may turn forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time, self.ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: self._time() + self.ahead)


# ---- what comes out -------------------------------------------------------------------------------------------------

SAMPLED = SamplingParams(n=2, temperature=1.0, seed=5, max_tokens=32, ignore_eos=True)
KINDS = [GREEDY, SAMPLED, replace(SAMPLED, stop=["e", "th"]), replace(SAMPLED, logprobs=2)]


@pytest.mark.parametrize("params", KINDS, ids=["greedy", "sampled", "stop", "logprobs"])
async def test_outputs_are_those_of_llm(allm: AsyncLLM, llama: LLM, params: SamplingParams) -> None:
    wanted = expected(llama, "hello", params)
    outputs = [o async for o in allm.generate("hello", params)]
    assert result(outputs[-1]) == wanted
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    for before, after in itertools.pairwise(outputs):  # all so far: each output begins with the one before it
        for a, b in zip(before.outputs, after.outputs):
            assert b.text.startswith(a.text)
            assert list(b.token_ids)[: len(a.token_ids)] == list(a.token_ids)


@pytest.mark.parametrize("params", KINDS, ids=["greedy", "sampled", "stop", "logprobs"])
async def test_R095_deltas_are_the_whole(allm: AsyncLLM, llama: LLM, params: SamplingParams) -> None:
    texts, ids, ends = [""] * params.n, [[] for _ in range(params.n)], [None] * params.n
    logprobs: list[list[Any]] = [[] for _ in range(params.n)]
    async for output in allm.generate("hello", replace(params, output_kind=DELTA)):
        for part in output.outputs:
            assert ends[part.index] is None, "something came after the end"
            texts[part.index] += part.text
            ids[part.index] += part.token_ids
            logprobs[part.index] += part.logprobs or []
            ends[part.index] = part.finish_reason
    assert list(zip(texts, ids, ends)) == expected(llama, "hello", params)
    if params.logprobs is not None:
        assert [len(found) for found in logprobs] == [len(found) for found in ids]


@pytest.mark.parametrize("params", KINDS, ids=["greedy", "sampled", "stop", "logprobs"])
async def test_R095_a_late_reader_gets_the_same(
    allm: AsyncLLM, llama: LLM, monkeypatch: pytest.MonkeyPatch, params: SamplingParams
) -> None:
    monkeypatch.setattr("core.stream.TURN_TOKENS", 3)  # what piled up is read so many tokens at a time
    whole = replace(params, output_kind=RequestOutputKind.CUMULATIVE)
    wanted = [o async for o in allm.generate("hello", whole)][-1]
    assert result(wanted) == expected(llama, "hello", params)
    stream = allm.generate("hello", replace(params, output_kind=DELTA))
    outputs = [await anext(stream)]
    async with asyncio.timeout(PATIENCE):
        while allm.engine.scheduler.has_work:
            await settle(allm)
    job = allm._streams[outputs[0].request_id].job
    outputs += [output async for output in stream]
    for part in wanted.outputs:
        own = [p for output in outputs for p in output.outputs if p.index == part.index]
        assert "".join(p.text for p in own) == part.text
        assert [token for p in own for token in p.token_ids] == list(part.token_ids)
        assert [found for p in own for found in p.logprobs or ()] == (part.logprobs or [])
        assert own[-1].cumulative_logprob == part.cumulative_logprob
    assert not any(request.logprobs for request in job.requests), "what was given out is kept"


async def test_the_end_alone_is_one_output(allm: AsyncLLM, llama: LLM) -> None:
    outputs = [o async for o in allm.generate("hello", replace(SAMPLED, output_kind=FINAL))]
    assert [result(o) for o in outputs] == [expected(llama, "hello", SAMPLED)]


async def test_llms_stream_knows_the_kinds_too(llama: LLM) -> None:
    whole = expected(llama, "hello", SHORT)
    cumulative = replace(SHORT, output_kind=RequestOutputKind.CUMULATIVE)
    outputs = list(llama.generate("hello", cumulative, stream=True))
    assert len(outputs) == SHORT.max_tokens
    assert result(outputs[-1]) == whole
    (only,) = llama.generate("hello", replace(SHORT, output_kind=FINAL), stream=True)
    assert result(only) == whole
    with pytest.raises(InvalidRequestError, match="output_kind"):
        SamplingParams(output_kind="delta")  # type: ignore[arg-type]


async def test_many_together_get_what_each_gets_alone(allm: AsyncLLM, llama: LLM) -> None:
    prompts = [prompt_ids(i, 1 + (i * 7) % 40) for i in range(24)]
    wanted = [expected(llama, p, SHORT) for p in prompts]
    found = await asyncio.gather(*(last(allm.generate(p, SHORT)) for p in prompts))
    assert [result(o) for o in found] == wanted


async def test_chat_and_pictures(llava_folder: Path, llava: LLM) -> None:
    talk = [{"role": "user", "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "what?"}]}]
    async with await AsyncLLM.create(str(llava_folder), dtype="float32", block_size=16) as allm:
        assert result(await last(allm.chat(talk, SHORT))) == result(llava.chat(talk, SHORT)[0])
        prompt = with_pictures("a <image> b <image>", 1, 2)
        assert result(await last(allm.generate(prompt, SHORT))) == expected(llava, prompt, SHORT)
        with pytest.raises(MediaDecodeError):
            await last(allm.generate({"prompt": "<image>", "multi_modal_data": {"image": b"no picture"}}, SHORT))
        assert allm.get_tokenizer() is allm.engine.inputs.tokenizer
        assert allm.plan.architecture == llava.plan.architecture


async def test_what_cannot_be_served_is_refused_and_others_go_on(allm: AsyncLLM, llama: LLM) -> None:
    good = asyncio.create_task(last(allm.generate("hello", GREEDY)))
    with pytest.raises(InvalidRequestError, match="empty"):
        await last(allm.generate("", GREEDY))
    with pytest.raises(ContextLengthError):
        await last(allm.generate("hello", SamplingParams(max_tokens=10**6)))
    with pytest.raises(InvalidRequestError, match="sampling_params"):
        await last(allm.generate("hello", {"max_tokens": 3}))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="timeout"):
        await last(allm.generate("hello", GREEDY, timeout=0))
    assert result(await good) == expected(llama, "hello", GREEDY)


# ---- how requests end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [1, 2, 7])
@pytest.mark.parametrize("params", [LONG, replace(LONG, n=3, temperature=1.0, seed=1)], ids=["one", "three"])
async def test_R085_a_generator_that_is_closed_frees_its_pages(allm: AsyncLLM, seen: int, params: Any) -> None:
    stream = allm.generate(prompt_ids(0, 40), params)
    with hold(allm) as gate:
        for _ in range(seen):
            gate.let(1)
            await anext(stream)
        await stream.aclose()
    await settle(allm)
    assert_idle(allm)


@pytest.mark.parametrize("steps", [0, 1, 2, 20])
async def test_R085_a_cancelled_task_frees_its_pages(allm: AsyncLLM, llama: LLM, steps: int) -> None:
    with hold(allm) as gate:
        other = asyncio.create_task(last(allm.generate("hello", LONG)))
        task = asyncio.create_task(last(allm.generate(prompt_ids(0, 40), LONG)))
        await begun(allm, 2)
        gate.let(steps)
        await until(lambda: gate.holds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert result(await other) == expected(llama, "hello", LONG)


async def test_R085_a_task_that_is_cancelled_while_its_prompt_is_processed(
    allm: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, process = threading.Event(), threading.Event(), allm.engine.inputs.process

    def slow(prompt: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE)
        return process(prompt)

    monkeypatch.setattr(allm.engine.inputs, "process", slow)
    task = asyncio.create_task(last(allm.generate("hello", GREEDY)))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


async def test_R085_leaving_at_the_last_token_aborts_nothing(allm: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    aborted: list[str] = []
    abort = allm.engine.abort
    monkeypatch.setattr(allm.engine, "abort", lambda ids: (aborted.extend(ids), abort(ids)))
    async with contextlib.aclosing(allm.generate("hello", SHORT)) as stream:
        async for output in stream:
            if output.finished:
                break
    await settle(allm)
    assert aborted == []


async def test_abort_by_name_gives_what_there_is(allm: AsyncLLM, llama: LLM) -> None:
    outputs = []
    with hold(allm, 3) as gate:
        async for output in allm.generate("hello", LONG, "mine"):
            outputs.append(output)
            if len(output.outputs[0].token_ids) == 3:
                await allm.abort(["mine", "nobody's"])
                gate.open()
    assert outputs[-1].request_id == "mine"
    assert outputs[-1].outputs[0].finish_reason == "abort"
    ids = list(outputs[-1].outputs[0].token_ids)
    assert 3 <= len(ids) < LONG.max_tokens
    assert expected(llama, "hello", LONG)[0][1][: len(ids)] == ids


async def test_abort_while_the_prompt_is_processed(allm: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, process = threading.Event(), threading.Event(), allm.engine.inputs.process

    def slow(prompt: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE)
        return process(prompt)

    monkeypatch.setattr(allm.engine.inputs, "process", slow)
    task = asyncio.create_task(last(allm.generate("hello", replace(GREEDY, n=1), "mine")))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    await allm.abort("mine")
    go.set()
    assert result(await task) == [("", [], "abort")]


async def test_R083_one_name_for_two_requests(allm: AsyncLLM, llama: LLM) -> None:
    with hold(allm) as gate:
        a, b = allm.generate(prompt_ids(1, 9), LONG, "same"), allm.generate(prompt_ids(2, 9), LONG, "same")
        both = asyncio.gather(anext(a), anext(b))
        await begun(allm, 2)
        gate.let(5)
        first, second = await both
        assert first.request_id == "same"
        assert second.request_id.startswith("same-")
        await allm.abort("same")
    assert (await last(a)).outputs[0].finish_reason == "abort"
    assert result(await last(b)) == expected(llama, prompt_ids(2, 9), LONG)
    again = await last(allm.generate(prompt_ids(2, 9), SHORT, "same"))
    assert (again.request_id, result(again)) == ("same", expected(llama, prompt_ids(2, 9), SHORT))


async def test_R083_a_thousand_requests_of_one_name(allm: AsyncLLM, llama: LLM) -> None:
    one = replace(SHORT, max_tokens=2)
    wanted = [expected(llama, prompt_ids(i, 3 + i), one) for i in range(10)]
    found = await asyncio.gather(*(last(allm.generate(prompt_ids(i % 10, 3 + i % 10), one, "x")) for i in range(1000)))
    assert [result(o) for o in found] == [wanted[i % 10] for i in range(1000)]
    assert len({o.request_id for o in found}) == 1000


async def test_R086_a_slow_reader_gets_merged_deltas(allm: AsyncLLM, llama: LLM) -> None:
    stream = allm.generate("hello", replace(LONG, output_kind=DELTA))
    parts = [await anext(stream)]
    async with asyncio.timeout(PATIENCE):  # the engine runs to the end while nobody reads
        while allm.engine.scheduler.has_work:
            await settle(allm)
    parts += [part async for part in stream]
    assert len(parts) <= 3
    text, ids, _ = expected(llama, "hello", LONG)[0]
    assert "".join(p.outputs[0].text for p in parts) == text
    assert [i for p in parts for i in p.outputs[0].token_ids] == ids


async def test_R086_a_blocked_loop_is_called_once(allm: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, calls = asyncio.get_running_loop(), []
    call = loop.call_soon_threadsafe
    stream = allm.generate("hello", replace(LONG, output_kind=DELTA))
    with hold(allm, 1):
        await anext(stream)
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a, **k: (calls.append(a), call(*a, **k))[1])
    while allm.engine.scheduler.has_work:  # blocks the loop
        done = threading.Event()
        allm._thread._send(done.set)
        assert done.wait(PATIENCE)
    assert len(calls) == 1
    monkeypatch.undo()
    assert (await last(stream)).finished


async def test_a_stop_string_ends_a_sequence_that_nobody_reads(allm: AsyncLLM, llama: LLM) -> None:
    whole = expected(llama, "hello", LONG)[0][0]
    stream = allm.generate("hello", replace(LONG, stop=whole[40:44]))
    with hold(allm, 1) as gate:
        await anext(stream)
        while allm.engine.scheduler.has_work:  # the loop turns after each step, whatever it has to do besides
            await gate.take(1)
    (request,) = allm._streams[(await anext(stream)).request_id].job.requests
    assert request.output_len < LONG.max_tokens
    await stream.aclose()


async def test_R087_a_full_queue_refuses_and_those_accepted_finish(fresh: Any, llama: LLM) -> None:
    llm = fresh(max_num_seqs=1, max_queued_requests=3)
    with hold(llm, 5):  # the one that runs goes on running
        running = llm.generate("hello", LONG)
        await anext(running)
        waiting = [asyncio.create_task(last(llm.generate(prompt_ids(i, 5), SHORT))) for i in range(3)]
        await begun(llm, 4)
        for _ in range(20):
            with pytest.raises(OverloadedError, match="max_queued_requests"):
                await last(llm.generate("one too many", SHORT))
    await running.aclose()
    assert [result(await task) for task in waiting] == [expected(llama, prompt_ids(i, 5), SHORT) for i in range(3)]
    assert result(await last(llm.generate("hello", SHORT))) == expected(llama, "hello", SHORT)


async def test_R088_the_deadline_passes_while_it_runs(
    allm: AsyncLLM, llama: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    texts, count = [], 0
    with hold(allm, 5), pytest.raises(RequestTimeoutError, match="after 5 tokens") as caught:
        async for output in allm.generate("hello", replace(LONG, output_kind=DELTA), timeout=PATIENCE):
            texts.append(output.outputs[0].text)
            count += len(output.outputs[0].token_ids)
            if count == 5:
                clock.ahead = PATIENCE
    (partial,) = caught.value.partial_results or ()
    assert partial.outputs[0].token_ids == expected(llama, "hello", LONG)[0][1][:5]
    assert "".join(texts) == partial.outputs[0].text
    assert caught.value.status == 504


async def test_R088_the_deadline_passes_in_the_queue(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, clock = fresh(max_num_seqs=1), Clock(monkeypatch)
    with hold(llm, 5):
        running = llm.generate("hello", LONG)
        await anext(running)
        late = asyncio.ensure_future(anext(llm.generate("hello", SHORT, timeout=PATIENCE)))
        await begun(llm, 2)
        clock.ahead = PATIENCE
        with pytest.raises(RequestTimeoutError, match="waited for its turn"):
            await late
    await running.aclose()
    await settle(llm)
    assert_idle(llm)


async def test_R088_the_deadline_passes_while_the_prompt_is_processed(
    allm: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(allm.engine.inputs, "process", lambda prompt: go.wait(PATIENCE))
    with pytest.raises(RequestTimeoutError, match="processed"):
        await last(allm.generate("hello", SHORT, timeout=0.1))
    go.set()


async def test_a_deadline_that_does_not_pass_changes_nothing(allm: AsyncLLM, llama: LLM) -> None:
    assert result(await last(allm.generate("hello", SHORT, timeout=PATIENCE))) == expected(llama, "hello", SHORT)


async def test_a_slow_prompt_delays_no_step(allm: AsyncLLM, llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    go, process = threading.Event(), allm.engine.inputs.process
    monkeypatch.setattr(
        allm.engine.inputs, "process", lambda p: (go.wait(PATIENCE) if p == "slow" else None, process(p))[1]
    )
    slow = asyncio.create_task(last(allm.generate("slow", SHORT)))
    assert result(await last(allm.generate("hello", SHORT))) == expected(llama, "hello", SHORT)
    go.set()
    assert result(await slow) == expected(llama, "slow", SHORT)


# ---- how engines end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["runner.run", "scheduler.schedule", "_process"])
@pytest.mark.parametrize("error", [RuntimeError("a fault"), SystemExit(3)], ids=["error", "exit"])
async def test_R090_an_engine_that_breaks_tells_all_who_wait(fresh: Any, where: str, error: BaseException) -> None:
    llm = fresh(max_num_seqs=2)
    with hold(llm, 5):
        streams = [llm.generate(prompt_ids(i, 5), LONG) for i in range(5)]
        await anext(streams[0])
        readers = asyncio.gather(*(last(s) for s in streams), return_exceptions=True)
        await begun(llm, 5)
        owner: Any = llm.engine
        *path, name = where.split(".")
        for part in path:
            owner = getattr(owner, part)

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise error

        setattr(owner, name, broken)
    found = await readers
    assert [type(e) for e in found] == [EngineDeadError] * 5
    assert len({id(e) for e in found}) == 5
    assert str(error) in str(found[0])
    with pytest.raises(EngineDeadError):
        await last(llm.generate("hello", SHORT))
    with pytest.raises(EngineDeadError):
        await llm.check_health()
    await llm.close()


async def test_close_lets_requests_finish(fresh: Any, llama: LLM) -> None:
    llm = fresh()
    await llm.check_health()
    with hold(llm, 5):
        stream = llm.generate("hello", LONG)
        await anext(stream)
        running = asyncio.create_task(last(stream))
        closing = asyncio.create_task(llm.close(drain=None))
        await until(lambda: llm._draining)
        with pytest.raises(DrainingError):
            await last(llm.generate("hello", SHORT))
    assert result(await running) == expected(llama, "hello", LONG)
    await closing
    assert not llm._thread._thread.is_alive()
    with pytest.raises(EngineDeadError, match="closed"):
        await last(llm.generate("hello", SHORT))
    await llm.close()


@pytest.mark.parametrize("drain", [0.0, 0.05])
async def test_close_ends_what_does_not_finish_in_time(fresh: Any, drain: float) -> None:
    llm = fresh(max_num_seqs=1)
    with hold(llm, 3):
        streams = [llm.generate("hello", LONG) for _ in range(2)]
        await anext(streams[0])
        waiting = [asyncio.create_task(last(s)) for s in streams]
        await begun(llm, 2)
        closing = asyncio.create_task(llm.close(drain=drain))
        await until(lambda: llm._thread._closing)
    await closing
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(e) for e in found] == [EngineDeadError] * 2
    assert found[0].partial_results[0].outputs[0].token_ids


async def test_R093_an_engine_that_is_forgotten_ends(fresh: Any, llama_folder: Path) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    llm = AsyncLLM(str(llama_folder), dtype="float32", block_size=16)
    assert (await last(llm.generate("hello", SHORT))).finished
    thread, engine = llm._thread._thread, weakref.ref(llm.engine)
    del llm

    def gone() -> bool:
        gc.collect()  # again: the worker that processed the prompt may hold it a little longer
        return not thread.is_alive() and engine() is None

    await until(gone)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers


async def test_R093_two_engines_and_two_event_loops(fresh: Any, allm: AsyncLLM, llama: LLM) -> None:
    other = fresh(block_size=4)
    wanted = expected(llama, "hello", GREEDY)

    def elsewhere() -> list[Result]:
        async def both() -> list[Result]:
            return [
                result(o) for o in await asyncio.gather(*(last(e.generate("hello", GREEDY)) for e in (allm, other)))
            ]

        return asyncio.run(both())

    there = asyncio.create_task(asyncio.to_thread(elsewhere))
    here = await asyncio.gather(*(last(e.generate("hello", GREEDY)) for e in (allm, other)))
    assert [*(result(o) for o in here), *await there] == [wanted] * 4


async def test_loops_that_were_closed_are_forgotten(allm: AsyncLLM) -> None:
    for _ in range(4):
        await asyncio.to_thread(lambda: asyncio.run(last(allm.generate("hello", SHORT))))
    await last(allm.generate("hello", SHORT))
    assert not any(loop.is_closed() for loop in allm._thread._mailboxes)


@pytest.mark.parametrize("unread", [0, 2])
@pytest.mark.parametrize("tidy", [True, False])
async def test_R085_a_loop_that_ends_takes_its_requests_along(fresh: Any, tidy: bool, unread: int) -> None:
    """As when a program's event loop is closed before its requests are done, with and without closing its generators, and
    with and without something on its way to it."""
    llm = fresh()
    with hold(llm, 1) as gate:

        def elsewhere() -> Any:
            loop = asyncio.new_event_loop()
            stream = llm.generate("hello", LONG)
            loop.run_until_complete(anext(stream))
            asyncio.run(gate.take(unread))
            if tidy:
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            return stream

        stream = await asyncio.to_thread(elsewhere)
        (request,) = llm.engine._requests.values()
    async with asyncio.timeout(PATIENCE):
        while llm.engine.scheduler.has_work:
            await settle(llm)
        await settle(llm)
        assert request.finish_reason == "abort"
        assert not llm._thread._mailboxes
        assert llm.engine.pool.num_free == llm.engine.pool.num_pages
        await llm.close(drain=None)
    del stream

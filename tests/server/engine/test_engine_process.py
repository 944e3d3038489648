"""The engine in a process of its own gives what the engine in this one gives, and nothing of a request stays behind in it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import LLM, RequestOutputKind, SamplingParams
from core.errors import (
    ContextLengthError,
    DrainingError,
    EngineDeadError,
    GrammarError,
    InvalidRequestError,
    MediaDecodeError,
    OverloadedError,
    RequestTimeoutError,
)
from core.server import wire
from core.server.client import EngineClient
from core.server.sequences import Sequences
from core.server.supervisor import State

from .conftest import (
    ENDLESS,
    GREEDY,
    LONG,
    OPTIONS,
    PATIENCE,
    SHORT,
    Start,
    expected,
    is_running,
    last,
    no_new_engine,
    picture,
    prompt_ids,
    result,
    until,
    until_idle,
    wait_until_gone,
)

pytestmark = pytest.mark.asyncio
DELTA = RequestOutputKind.DELTA
SAMPLED = SamplingParams(n=2, temperature=1.0, seed=5, max_tokens=32, ignore_eos=True)
KINDS = {
    "greedy": GREEDY,
    "sampled": SAMPLED,
    "stop": replace(SAMPLED, stop=["e", "th"]),
    "penalties": replace(SAMPLED, repetition_penalty=1.3, presence_penalty=0.5, logit_bias={9: 2.0}),
    "bad words": replace(GREEDY, bad_words=["e", "a"]),
    "choice": SamplingParams(temperature=0, structured_outputs={"choice": ["yes", "no"]}),  # type: ignore[arg-type]
}

# ---- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
async def test_outputs_are_those_of_llm(client: EngineClient, llama: LLM, params: SamplingParams) -> None:
    wanted = expected(llama, "hello", params)
    outputs = [o async for o in client.generate("hello", params)]
    assert result(outputs[-1]) == wanted
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    for before, after in itertools.pairwise(outputs):
        for a, b in zip(before.outputs, after.outputs):
            assert b.text.startswith(a.text)


async def test_R095_deltas_are_the_whole(client: EngineClient, llama: LLM) -> None:
    texts, ids = ["", ""], [[], []]
    async for output in client.generate("hello", replace(SAMPLED, output_kind=DELTA)):
        for part in output.outputs:
            texts[part.index] += part.text
            ids[part.index] += part.token_ids
    assert [(t, i) for t, i in zip(texts, ids)] == [(t, i) for t, i, _ in expected(llama, "hello", SAMPLED)]


async def test_logprobs_of_output_and_prompt(client: EngineClient, llama: LLM) -> None:
    params = replace(SHORT, logprobs=3, prompt_logprobs=2)
    (wanted,), found = llama.generate("hello there", params), await last(client.generate("hello there", params))
    for places, expected_places in (
        (found.outputs[0].logprobs, wanted.outputs[0].logprobs),
        ((found.prompt_logprobs or [])[1:], (wanted.prompt_logprobs or [])[1:]),
    ):
        assert places
        assert expected_places
        for place, expected_place in zip(places, expected_places, strict=True):
            assert place is not None
            assert expected_place is not None
            assert [(t, p.rank, p.decoded_token) for t, p in place.items()] == [
                (t, p.rank, p.decoded_token) for t, p in expected_place.items()
            ]
            assert [p.logprob for p in place.values()] == pytest.approx(
                [p.logprob for p in expected_place.values()], abs=1e-4
            )


async def test_many_together_get_what_each_gets_alone(client: EngineClient, llama: LLM) -> None:
    prompts = [prompt_ids(i, 1 + (i * 7) % 40) for i in range(24)]
    wanted = [expected(llama, p, SHORT) for p in prompts]
    assert [result(o) for o in await asyncio.gather(*(last(client.generate(p, SHORT)) for p in prompts))] == wanted


async def test_chat_pictures_and_two_models_in_two_processes(
    client: EngineClient, llama: LLM, llava_folder: Path
) -> None:
    talk = [{"role": "user", "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "what?"}]}]
    prompt = {"prompt": "a <image> b <image>", "multi_modal_data": {"image": [picture(1), picture(2, 90, 30)]}}
    with LLM(str(llava_folder), **OPTIONS) as llava:
        wanted = result(llava.chat(talk, SHORT)[0]), expected(llava, prompt, SHORT)
        architecture = llava.plan.architecture
    other = await EngineClient.create(str(llava_folder), **OPTIONS)
    try:
        assert other._thread.pid != client._thread.pid
        assert other.plan.architecture == architecture
        assert other.capabilities.modalities == ("image",)
        found = await asyncio.gather(
            last(other.chat(talk, SHORT)),
            last(other.generate(prompt, SHORT)),
            last(client.generate("hello", SHORT)),
        )
        assert [result(o) for o in found] == [*wanted, expected(llama, "hello", SHORT)]
        assert result(await last(other.chat(talk, SHORT))) == wanted[0]
        totals = other.stats().gauges.totals
        assert totals.encoder_seconds > 0
        assert totals.encoder_hits >= 1
        with pytest.raises(MediaDecodeError):
            await last(other.generate({"prompt": "<image>", "multi_modal_data": {"image": b"no picture"}}, SHORT))
        await until_idle(other)
    finally:
        await other.close()


async def test_errors_are_those_of_llm(client: EngineClient, llama: LLM) -> None:
    good = asyncio.create_task(last(client.generate("hello", GREEDY)))
    for prompt, params, kind in [
        ("", GREEDY, InvalidRequestError),
        ("hello", SamplingParams(max_tokens=10**6), ContextLengthError),
        ("hello", replace(SHORT, stop_token_ids=[10**6]), InvalidRequestError),
    ]:
        with pytest.raises(kind) as wanted:
            llama.generate(prompt, params)
        with pytest.raises(kind) as found:
            await last(client.generate(prompt, params))
        assert str(found.value) == str(wanted.value)
        assert (found.value.code, found.value.param) == (wanted.value.code, wanted.value.param)
    with pytest.raises(InvalidRequestError, match="another process"):
        await last(client.generate("hello", replace(SHORT, logits_processors=[lambda ids, row: row])))
    assert result(await good) == expected(llama, "hello", GREEDY)


async def test_R021_a_bad_grammar_is_refused_before_anything_is_yielded(client: EngineClient, llama: LLM) -> None:
    params = SamplingParams(structured_outputs={"regex": "(unclosed"})  # type: ignore[arg-type]
    good = asyncio.create_task(last(client.generate("hello", GREEDY)))
    outputs = []
    with pytest.raises(GrammarError) as caught:
        async for output in client.generate("hello", params):
            outputs.append(output)
    assert (outputs, caught.value.code, caught.value.status) == ([], "invalid_grammar", 400)
    assert result(await good) == expected(llama, "hello", GREEDY)


async def test_what_starting_decided_is_known_here(client: EngineClient, llama: LLM) -> None:
    assert client.plan.as_json().keys() == llama.plan.as_json().keys()
    assert (client.plan.architecture, client.plan.plugin) == (llama.plan.architecture, llama.plan.plugin)
    assert client.plan.lines()
    assert client.engine.eos_token_ids == llama.engine.eos_token_ids
    assert client.default_sampling_params() == llama.default_sampling_params()
    assert client.get_tokenizer().decode([9]) == llama.get_tokenizer().decode([9])
    assert client.is_ready
    await client.check_health()


async def test_gauges_count(client: EngineClient) -> None:
    client.reset_caches()
    await until_idle(client)
    before = client.stats().gauges.totals
    prompt = prompt_ids(77, 64)
    for _ in range(2):
        assert (await last(client.generate(prompt, SHORT))).num_cached_tokens in (0, 48)
    await until_idle(client)
    after = client.stats().gauges.totals
    assert after.prompt_tokens - before.prompt_tokens == 128
    assert after.cached_tokens - before.cached_tokens == 48
    assert after.output_tokens - before.output_tokens == 24
    assert after.steps - before.steps >= 24
    assert after.step_seconds > before.step_seconds
    assert client.stats().gauges.levels.pages_kept > 0


# ---- how requests end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [1, 7])
@pytest.mark.parametrize("params", [ENDLESS, replace(ENDLESS, n=3, temperature=1.0, seed=1)], ids=["one", "three"])
async def test_R085_who_leaves_frees_the_pages(client: EngineClient, seen: int, params: Any) -> None:
    """While another goes on. That no step is done in between is tested in `test_engine_loop.py`."""
    async with contextlib.aclosing(client.generate("hello", replace(ENDLESS, output_kind=DELTA))) as other:
        await anext(other)
        stream = client.generate(prompt_ids(0, 40), params)
        for _ in range(seen):
            await anext(stream)
        assert client.stats().gauges.levels.running == 1 + params.n
        await stream.aclose()
        await until(lambda: client.stats().gauges.levels.running == 1)
        assert not (await anext(other)).finished


async def test_R085_a_task_that_is_cancelled_before_its_turn(client: EngineClient, llama: LLM) -> None:
    others = [asyncio.create_task(last(client.generate(prompt_ids(i, 30), GREEDY))) for i in range(3)]
    tasks = [asyncio.create_task(last(client.generate(prompt_ids(9, 40), LONG))) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True))
    assert [result(await other) for other in others] == [expected(llama, prompt_ids(i, 30), GREEDY) for i in range(3)]


async def test_abort_by_name_gives_what_there_is(client: EngineClient, llama: LLM) -> None:
    stream = client.generate("hello", ENDLESS, "mine")
    seen = len((await anext(stream)).outputs[0].token_ids)
    with held(client):
        await client.abort(["mine", "nobody's"])
    (text,) = (await last(stream)).outputs
    assert text.finish_reason == "abort"
    assert seen <= len(text.token_ids)
    assert_begins(llama, text.token_ids)


def assert_begins(llama: LLM, ids: Sequence[int]) -> None:
    """These are the first tokens of an answer without end to "hello", or more than are looked at."""
    ((_, wanted, _),) = expected(llama, "hello", LONG)
    assert list(ids[: len(wanted)]) == wanted[: len(ids)]


async def test_R088_a_deadline_that_passes_while_it_runs(
    client: EngineClient, llama: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = client.generate("hello", replace(ENDLESS, output_kind=DELTA), timeout=PATIENCE)
    await anext(stream)
    loop = asyncio.get_running_loop()
    now = loop.time
    with pytest.raises(RequestTimeoutError) as caught:
        async for _ in stream:
            monkeypatch.setattr(loop, "time", lambda: now() + PATIENCE)
    (partial,) = caught.value.partial_results or ()
    assert partial.outputs[0].token_ids
    assert_begins(llama, partial.outputs[0].token_ids)
    assert caught.value.status == 504


async def test_R088_the_engine_holds_the_deadline_where_its_server_has_no_time_to(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Sequences.add
    told: list[float | None] = []

    def add(sequences: Sequences, listener: Any, remaining: float | None) -> wire.Add:
        told.append(remaining)
        return real(sequences, listener, 0.5)

    monkeypatch.setattr(Sequences, "add", add)
    with pytest.raises(RequestTimeoutError, match="the request's time was over"):
        await last(client.generate("hello", ENDLESS, timeout=10 * PATIENCE))
    (remaining,) = told
    assert remaining is not None
    assert 9 * PATIENCE < remaining <= 10 * PATIENCE


async def test_R085_sixty_four_streams_of_which_some_leave(client: EngineClient, llama: LLM) -> None:
    chance = random.Random(1)
    prompts = [prompt_ids(i, chance.randint(1, 60)) for i in range(64)]
    wanted = [expected(llama, p, GREEDY) for p in prompts]

    async def one(index: int) -> Any:
        leaves = index % 4 == 1
        seen = 0
        async with contextlib.aclosing(client.generate(prompts[index], GREEDY)) as stream:
            async for output in stream:
                seen += 1
                if leaves and seen > index % 20:
                    return None
                if output.finished:
                    return result(output)
        raise AssertionError("it never ended")

    found = await asyncio.gather(*(one(i) for i in range(64)))
    assert [f for i, f in enumerate(found) if i % 4 != 1] == [w for i, w in enumerate(wanted) if i % 4 != 1]
    await until_idle(client)


async def test_R083_one_name_for_many(client: EngineClient, llama: LLM) -> None:
    outputs = await asyncio.gather(*(last(client.generate(prompt_ids(i, 9), SHORT, "same")) for i in range(30)))
    assert [result(o) for o in outputs] == [expected(llama, prompt_ids(i, 9), SHORT) for i in range(30)]
    assert len({o.request_id for o in outputs}) == 30


@contextlib.contextmanager
def held(client: EngineClient) -> Iterator[None]:
    """The engine's process stands still."""
    assert client._thread.pid is not None
    os.kill(client._thread.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(client._thread.pid, signal.SIGCONT)


async def test_R087_a_full_queue_refuses_and_those_accepted_finish(start: Start, llama: LLM) -> None:
    with start(max_num_seqs=1, max_queued_requests=3, max_queued_tokens=60) as client:
        await client.ready()
        running = client.generate("hello", ENDLESS)
        await anext(running)

        def sent() -> int:
            return sum(stream.begun for stream in client._streams.values())

        with held(client):  # the one that runs goes on running, and those that wait go on waiting
            waiting = [asyncio.create_task(last(client.generate(prompt_ids(i, 12), SHORT))) for i in range(3)]
            await until(lambda: sent() == 4)
            for _ in range(20):
                with pytest.raises(OverloadedError, match="max_queued_requests"):
                    await last(client.generate("one too many", SHORT))
            waiting.pop().cancel()
            await until(lambda: sent() == 3)
            with pytest.raises(OverloadedError, match="max_queued_tokens"):
                await last(client.generate(prompt_ids(7, 37), SHORT))
            waiting.append(asyncio.create_task(last(client.generate(prompt_ids(2, 36), SHORT))))
            await until(lambda: sent() == 4)
        await running.aclose()
        sizes = (12, 12, 36)
        assert [result(await t) for t in waiting] == [
            expected(llama, prompt_ids(i, n), SHORT) for i, n in enumerate(sizes)
        ]
        # One that is alone in the queue is served however long it is.
        assert (await last(client.generate(prompt_ids(7, 100), SHORT))).finished


async def test_R085_a_loop_that_ends_takes_its_requests_along(client: EngineClient, llama: LLM) -> None:
    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        stream = client.generate("hello", ENDLESS)
        loop.run_until_complete(anext(stream))
        loop.close()

    await asyncio.to_thread(elsewhere)
    await until(lambda: client.stats().gauges.levels.running == 0)
    client._streams.clear()  # its generator was never closed: there is no loop to close it in
    client._queued.clear()
    assert result(await last(client.generate("hello", SHORT))) == expected(llama, "hello", SHORT)


# ---- how the process begins and ends --------------------------------------------------------------------------------


async def test_loading_is_a_state_and_requests_are_told_so(start: Start, llama: LLM) -> None:
    heard: list[tuple[str, int, int | None]] = []
    with contextlib.ExitStack() as stack:
        with no_new_engine():
            client = stack.enter_context(start(on_progress=lambda *progress: heard.append(progress)))
            assert client.state is State.LOADING
            assert not client.is_ready
            with pytest.raises(Exception, match="being loaded") as caught:
                await last(client.generate("hello", SHORT))
            assert (caught.value.status, caught.value.code) == (503, "loading")  # type: ignore[attr-defined]
        await client.ready()
        assert client.state is State.READY
        assert heard
        folder = client._thread._child._folder  # type: ignore[union-attr]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()
        with held(client):  # it is not done before all has been looked at
            running = asyncio.create_task(last(client.generate("hello", LONG)))
            await until(lambda: any(stream.begun for stream in client._streams.values()))
            closing = asyncio.create_task(client.close(drain=None))
            await until(lambda: client.state is State.DRAINING)
            with pytest.raises(DrainingError):
                await last(client.generate("hello", SHORT))
        assert result(await running) == expected(llama, "hello", LONG)
        await closing
        assert (client.state, client.died) == (State.DEAD, None)
        assert await client.ended() is None
        assert not folder.exists()
        with pytest.raises(EngineDeadError, match="closed"):
            await last(client.generate("hello", SHORT))
        await client.close()


async def test_R093_a_client_that_is_forgotten_ends_its_process(llama_folder: Path) -> None:
    client = EngineClient(str(llama_folder), **OPTIONS)
    await client.ready()
    assert (await last(client.generate("hello", SHORT))).finished
    pid, thread = client._thread.pid, client._thread._thread
    assert pid is not None
    assert is_running(pid)
    del client
    await asyncio.to_thread(thread.join, PATIENCE)
    wait_until_gone(pid)

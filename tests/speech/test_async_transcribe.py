"""`AsyncLLM.transcribe`: what `LLM.transcribe` gives, beside other requests, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from core import LLM, AsyncLLM, SamplingParams
from core.errors import (
    DrainingError,
    EngineDeadError,
    InvalidRequestError,
    MediaDecodeError,
    OverloadedError,
    PluginRuntimeError,
    RequestTimeoutError,
)
from sdk import registry
from sdk.transcription import SpeechToTextConfig

from ..core.gate import PATIENCE, hold, until
from . import fake
from .fake import ID, PREFIX, RATE, Listening, Speech, said
from .test_transcribe import doubting, random_words

pytestmark = pytest.mark.asyncio
OpenAsync = Callable[..., AsyncLLM]
OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "disable_progress": True}


@pytest.fixture
def open_async(folder: Path) -> Iterator[OpenAsync]:
    """Opens the fake model with a class for speech; what is open is checked and closed at the end."""
    opened: list[AsyncLLM] = []

    def open_with(transcription: Any, **options: Any) -> AsyncLLM:
        registry.unregister(fake.ARCHITECTURE)
        fake.register(transcription)
        opened.append(AsyncLLM(str(folder), **OPTIONS, **options))
        return opened[-1]

    try:
        yield open_with
        for llm in opened:
            assert not llm._streams
            assert not llm._queued
            assert not llm._wholes
            assert llm._room.taken == 0
            llm._thread.close()
            assert llm.engine.pool.num_free == llm.engine.pool.num_pages
            assert not llm.engine.scheduler.has_work
    finally:
        registry.unregister(fake.ARCHITECTURE)
        for llm in opened:
            llm._thread.close()


@pytest.fixture
def plain(folder: Path) -> Iterator[Callable[..., LLM]]:
    """The same without an event loop."""
    opened: list[LLM] = []

    def open_with(transcription: Any) -> LLM:
        registry.unregister(fake.ARCHITECTURE)
        fake.register(transcription)
        opened.append(LLM(str(folder), **OPTIONS))
        return opened[-1]

    yield open_with
    for llm in opened:
        llm.close()


def clip(seed: int, count: int = 25) -> Any:
    return said(*random_words(seed, count)), RATE


@pytest.mark.parametrize("timestamps", [None, "segment", "word"])
async def test_it_gives_what_llm_gives(open_async: OpenAsync, plain: Callable[..., LLM], timestamps: Any) -> None:
    clips = [clip(seed, 3 + 20 * seed) for seed in range(3)]
    expected = plain(Listening).transcribe(clips, timestamps=timestamps)
    llm = open_async(Listening)
    assert await llm.transcribe(clips, timestamps=timestamps) == expected
    assert await llm.transcribe(clips[2], timestamps=timestamps) == expected[2]
    assert await llm.transcribe([]) == []


@pytest.mark.parametrize(("plugin", "timestamps"), [(Speech, None), (Listening, None), (Listening, "segment")])
async def test_what_is_streamed_end_to_end_is_the_text(open_async: OpenAsync, plugin: Any, timestamps: Any) -> None:
    llm, words = open_async(plugin), random_words(8, 33)
    deltas = [d async for d in llm.transcribe((said(*words), RATE), stream=True, timestamps=timestamps)]
    assert "".join(d.text for d in deltas) == " ".join(words)
    assert [d.done for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].done == await llm.transcribe((said(*words), RATE), timestamps=timestamps)


async def test_several_clips_are_streamed_one_after_another(open_async: OpenAsync) -> None:
    llm, clips = open_async(Speech), [clip(seed, 12) for seed in range(3)]
    deltas = [d async for d in llm.transcribe(clips, stream=True)]
    assert [d.index for d in deltas] == sorted(d.index for d in deltas)
    texts = ["".join(d.text for d in deltas if d.index == index) for index in range(3)]
    assert texts == [" ".join(random_words(seed, 12)) for seed in range(3)]


async def test_what_may_be_drawn_anew_is_not_shown_before_it_stays(open_async: OpenAsync) -> None:
    llm = open_async(doubting(temperatures=(0.5, 0.7), compression_ratio=1.0, avg_logprob=None))
    audio = said(*["two"] * 28), RATE
    deltas = [d async for d in llm.transcribe(audio, language="en", stream=True)]
    assert "".join(d.text for d in deltas) == " ".join(["two"] * 28)
    assert {s.temperature for s in deltas[-1].done.segments} == {0.7}


async def test_it_runs_beside_other_requests_and_its_like(open_async: OpenAsync) -> None:
    llm = open_async(Speech, max_num_seqs=4)
    words = random_words(3, 5)
    prompt = {
        "prompt_token_ids": [ID["<audio>"], *[ID["<pad>"]] * (PREFIX - 1), ID["<start>"]],
        "multi_modal_data": {"audio": (said(*words), RATE)},
    }

    async def generate() -> list[int]:
        found: list[int] = []
        async for output in llm.generate(prompt, SamplingParams(temperature=0)):
            found = list(output.outputs[0].token_ids)
        return found

    made = await asyncio.gather(
        *(llm.transcribe(clip(seed)) for seed in range(4)), *(generate() for _ in range(4)), llm.transcribe(clip(9, 90))
    )
    assert [t.text for t in made[:4]] == [" ".join(random_words(seed, 25)) for seed in range(4)]
    assert made[4:8] == [[*(ID[word] for word in words), ID["</s>"]]] * 4
    assert made[8].text == " ".join(random_words(9, 90))


# ---- how it ends ---------------------------------------------------------------------------------------------------


async def test_to_cancel_it_aborts_all_its_pieces(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    with hold(llm, 2) as gate:
        task = asyncio.create_task(llm.transcribe([clip(1, 300), clip(2, 300)]))
        await until(lambda: gate.holds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not llm.engine.scheduler.has_work)
    assert (await llm.transcribe(clip(1, 5))).text == " ".join(random_words(1, 5))


async def test_leaving_a_stream_early_leaves_nothing_behind(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    with hold(llm) as gate:
        async with aclosing(llm.transcribe(clip(9, 200), stream=True)) as deltas:
            first = asyncio.ensure_future(anext(deltas))
            await until(lambda: gate.holds)
            while not first.done():
                await gate.take(1)
            assert (await first).text
    await until(lambda: not llm.engine.scheduler.has_work)


async def test_one_bad_clip_among_others(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    good, bad, more = await llm.transcribe([clip(1, 3), b"no sound", clip(2, 30)], on_error="return")
    assert (good.error, more.error) == (None, None)
    assert more.text == " ".join(random_words(2, 30))
    assert isinstance(bad.error, MediaDecodeError)
    with pytest.raises(MediaDecodeError, match="clip 1: ") as caught:
        await llm.transcribe([clip(1, 3), b"no sound", clip(2, 30)])
    assert caught.value.partial_results == []


async def test_a_hook_that_fails_ends_its_own_clip(open_async: OpenAsync) -> None:
    class Broken(Speech):
        @classmethod
        def get_generation_prompt(cls, params: Any) -> Any:
            if len(params.audio) < RATE:
                raise RuntimeError("too short for me")
            return super().get_generation_prompt(params)

    llm = open_async(Broken)
    with hold(llm), pytest.raises(PluginRuntimeError, match="too short for me") as caught:
        await llm.transcribe([clip(1, 9), clip(2, 2), clip(3, 300)])
    assert caught.value.partial_results == []
    made = await llm.transcribe([clip(1, 9), clip(2, 2)], on_error="return")
    assert [type(t.error) for t in made] == [type(None), PluginRuntimeError]


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"language": "klingon"}, "unsupported_language"),
        ({"task": "sing"}, "unsupported_task"),
        ({"timestamps": "word"}, "unsupported_parameter"),
        ({"timeout": 0}, "invalid_request"),
        ({"on_error": "ignore"}, "invalid_request"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_R041_what_the_model_does_not_do_is_an_error(
    open_async: OpenAsync, wishes: dict[str, Any], code: str, stream: bool
) -> None:
    llm = open_async(Speech)
    with pytest.raises(InvalidRequestError) as caught:
        if stream:
            _ = [d async for d in llm.transcribe(clip(1), stream=True, **wishes)]
        else:
            await llm.transcribe(clip(1), **wishes)
    assert caught.value.code == code


@pytest.mark.parametrize("stream", [False, True])
async def test_R088_the_deadline_is_that_of_the_whole(open_async: OpenAsync, stream: bool) -> None:
    llm = open_async(Speech)
    with hold(llm), pytest.raises(RequestTimeoutError, match=r"the request's 0\.05 s were over"):
        if stream:
            _ = [d async for d in llm.transcribe(clip(1, 300), stream=True, timeout=0.05)]
        else:
            await llm.transcribe(clip(1, 300), timeout=0.05)
    await until(lambda: not llm.engine.scheduler.has_work)


async def test_a_reader_may_take_its_time(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    async with aclosing(llm.transcribe(clip(1, 10), stream=True, timeout=PATIENCE)) as deltas:
        texts = []
        async for delta in deltas:
            await asyncio.sleep(0.01)
            texts.append(delta.text)
    assert "".join(texts) == " ".join(random_words(1, 10))


async def test_R087_it_is_refused_as_a_whole_or_not_at_all(open_async: OpenAsync) -> None:
    llm = open_async(Speech, max_num_seqs=1, max_queued_requests=2)
    with hold(llm):  # no piece begins, and all of them wait
        burst = [asyncio.create_task(llm.transcribe(clip(seed, 60))) for seed in range(20)]
        await until(lambda: sum(task.done() for task in burst) == 18)  # before a clip of theirs is opened
        assert all(isinstance(task.exception(), OverloadedError) for task in burst[2:])
        await until(lambda: len(llm._queued) >= 2)
        with pytest.raises(OverloadedError):
            await llm.transcribe(clip(1, 3))
    assert [t.text for t in await asyncio.gather(*burst[:2])] == [" ".join(random_words(s, 60)) for s in range(2)]


async def test_R089_closing_waits_for_it_between_its_rounds_too(open_async: OpenAsync) -> None:
    allowed = threading.Event()

    class Slow(Listening):
        @classmethod
        def get_generation_prompt(cls, params: Any) -> Any:
            allowed.wait(PATIENCE)  # between finding the language and writing
            return super().get_generation_prompt(params)

    llm = open_async(Slow)
    task = asyncio.create_task(llm.transcribe(clip(4)))
    await until(lambda: llm._wholes)
    closing = asyncio.create_task(llm.close(drain=None))
    await until(lambda: llm._draining)
    with pytest.raises(DrainingError):
        await llm.transcribe(clip(5))
    allowed.set()
    assert (await task).text == " ".join(random_words(4, 25))
    await closing
    with pytest.raises(EngineDeadError):
        await llm.transcribe(clip(4))


async def test_what_is_left_when_closing_ends(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    with hold(llm, 2) as gate:
        task = asyncio.create_task(llm.transcribe(clip(1, 300)))
        await until(lambda: gate.holds)
        closing = asyncio.create_task(llm.close())
        await until(lambda: llm._thread._closing)
    await closing
    with pytest.raises(EngineDeadError):
        await task


async def test_the_loop_turns_while_clips_are_cut_and_read(open_async: OpenAsync) -> None:
    """A plugin that takes its time in a hook keeps nobody else waiting."""
    reading, turned = threading.Event(), threading.Event()

    class Thoughtful(Speech):
        @classmethod
        def get_speech_to_text_config(cls, model_config: Any, task_type: Any) -> SpeechToTextConfig:
            return Speech.get_speech_to_text_config(model_config, task_type)

        @classmethod
        def post_process_output(cls, text: str) -> str:
            reading.set()
            assert turned.wait(PATIENCE)
            return text

    llm = open_async(Thoughtful)
    made = asyncio.create_task(llm.transcribe(clip(1, 3)))
    await until(reading.is_set)
    turned.set()
    assert (await made).text == " ".join(random_words(1, 3))


# ---- what it may take, and what is wrong with it ---------------------------------------------------------------------


async def test_clips_wait_for_memory_before_they_are_opened(open_async: OpenAsync) -> None:
    llm = open_async(Speech, max_audio_seconds=10)
    held = 4 * len(clip(0, 30)[0])
    llm._room.size = 4 * 10 * RATE
    with hold(llm) as gate:
        waiting = [asyncio.create_task(llm.transcribe(clip(seed, 30))) for seed in range(4)]
        await until(lambda: gate.holds)
        assert (
            llm._room.taken == held
        )  # that of the first, which is known by now: others may be longer than what is left
        assert len(llm._room._turns) == 3
        waiting[1].cancel()
        with pytest.raises(RequestTimeoutError):
            await llm.transcribe(clip(5), timeout=0.01)
        with pytest.raises(asyncio.CancelledError):
            await waiting.pop(1)
        assert len(llm._room._turns) == 2
    expected = [" ".join(random_words(seed, 30)) for seed in (0, 2, 3)]
    assert [t.text for t in await asyncio.gather(*waiting)] == expected


async def test_a_list_of_clips_takes_no_more_memory_than_there_is(open_async: OpenAsync) -> None:
    llm = open_async(Speech)
    llm._room.size = 1  # each goes alone
    made = await asyncio.gather(
        *(llm.transcribe([clip(seed, 3), b"no sound", clip(9, 30)], on_error="return") for seed in range(3))
    )
    assert [[t.text for t in found] for found in made] == [
        [" ".join(random_words(seed, 3)), "", " ".join(random_words(9, 30))] for seed in range(3)
    ]


async def test_a_stream_goes_on_after_a_bad_clip_where_failures_are_returned(open_async: OpenAsync) -> None:
    llm, clips = open_async(Speech), [clip(1, 12), b"no sound", clip(2, 12)]
    deltas = [d async for d in llm.transcribe(clips, stream=True, on_error="return")]
    whole = await llm.transcribe(clips, on_error="return")
    assert [d.done.text for d in deltas if d.done] == [t.text for t in whole]
    (failed,) = [d for d in deltas if d.index == 1]
    assert failed.text == ""
    assert isinstance(failed.done.error, MediaDecodeError)
    with pytest.raises(MediaDecodeError, match="clip 1: ") as caught:
        _ = [d async for d in llm.transcribe(clips, stream=True)]
    assert [t.text for t in caught.value.partial_results] == [" ".join(random_words(1, 12))]


@pytest.mark.parametrize(
    "wrong", [{"temperature": "0"}, {"temperature": None}, {"priority": "high"}, {"priority": None}, {"timeout": "3"}]
)
async def test_a_wrong_type_is_the_callers_error(open_async: OpenAsync, wrong: dict[str, Any]) -> None:
    llm = open_async(Speech)
    for on_error in ("raise", "return"):
        with pytest.raises(InvalidRequestError) as caught:
            await llm.transcribe([clip(1), clip(2)], on_error=on_error, **wrong)
        assert [caught.value.param] == list(wrong)
    with pytest.raises(InvalidRequestError):
        _ = [d async for d in llm.transcribe(clip(1), stream=True, on_error="return", **wrong)]

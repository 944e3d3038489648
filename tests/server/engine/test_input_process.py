"""Prompts are processed in a process of their own: what hangs or breaks there ends one request, and nobody waits for it."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core import LLM
from core.errors import (
    EngineDeadError,
    InvalidRequestError,
    MediaDecodeError,
    PluginRuntimeError,
    RequestTimeoutError,
)
from core.server import input_pool, wire
from core.server.client import EngineClient
from core.server.input_pool import _Slot
from core.server.letters import read_prompt, write_prompt
from core.tools import FORMATS, ToolParser
from sdk import registry

from .conftest import (
    HANGING,
    LONG,
    OPTIONS,
    PATIENCE,
    SHORT,
    Shared,
    expected,
    last,
    picture,
    prompt_ids,
    result,
    shared,
    until,
)

pytestmark = pytest.mark.asyncio
SLEEP, RAISE, ABORT, HOLD = 31, 33, 35, 37
"""Widths of pictures that a bad processor cannot bear."""
HELD = "held"
"""A pipe beside the bad processor, where it waits for a byte and lets no other thread of Python's run meanwhile."""
BAD_PROCESSOR = f"""
import ctypes, os, time
from engine_plugin_llava.processing import LlavaMultiModalProcessor

HERE = os.path.dirname(__file__)

class Bad(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt, mm_data, mm_kwargs, tok_kwargs):
        for image in mm_data.get("images", ()):
            if image.width in ({SLEEP}, {HOLD}):
                open(os.path.join(HERE, f"{HANGING}-{{image.width}}"), "w").close()
            if image.width == {SLEEP}:
                time.sleep(1000)
            if image.width == {RAISE}:
                raise RuntimeError("a fault of the processor's")
            if image.width == {ABORT}:
                os.abort()
            if image.width == {HOLD}:
                pipe = os.open(os.path.join(HERE, "{HELD}"), os.O_RDWR)
                ctypes.PyDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)
        return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)
"""
LLAVA = "LlavaForConditionalGeneration"
TIMEOUT = 60.0
"""For a prompt, where nothing hangs."""


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the bad processor is; who makes an engine takes it for LLaVA's."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "a_bad_processor.py").write_text(BAD_PROCESSOR)
    os.mkfifo(folder / HELD)
    sys.path.insert(0, str(folder))
    registry.register(LLAVA, "a_bad_processor:Bad", part="processor", replace=True)
    yield folder
    registry.unregister(LLAVA)
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def opened(llava_folder: Path, bad_folder: Path) -> Iterator[Shared]:
    with shared(lambda: EngineClient(str(llava_folder), input_timeout=TIMEOUT, input_processes=1, **OPTIONS)) as made:
        yield made


@pytest_asyncio.fixture
async def client(client: EngineClient) -> AsyncIterator[EngineClient]:
    """One whose process for prompts is up."""
    assert (await last(client.generate("hello", SHORT))).finished
    yield client
    client.engine.pool.timeout = TIMEOUT  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def llava(llava_folder: Path) -> Iterator[LLM]:
    with LLM(str(llava_folder), **OPTIONS) as llm:
        yield llm


def file_of(width: int) -> bytes:
    held = io.BytesIO()
    picture(1, width, 40).save(held, "PNG")
    return held.getvalue()


def with_file(width: int) -> dict[str, Any]:
    return {"prompt": "a <image> b", "multi_modal_data": {"image": file_of(width)}}


def pid_of(client: EngineClient) -> int:
    (slot,) = client.engine.pool._slots  # type: ignore[union-attr]
    return slot._child.pid  # type: ignore[union-attr]


async def test_what_is_processed_there_is_what_is_processed_here(client: EngineClient, llava: LLM) -> None:
    for prompt in (with_file(70), "only text", {"prompt": "text", "cache_salt": "x"}, prompt_ids(0, 9)):
        assert result(await last(client.generate(prompt, SHORT))) == expected(llava, prompt, SHORT)
        here, there = llava.engine.inputs.process(prompt), client.engine.inputs.process(prompt)
        assert here[0] == there[0]
        assert here[2:] == there[2:]
        assert here.prompt.prompt_token_ids == there.prompt.prompt_token_ids
        assert [i.kwargs.keys() for i in here.prompt.items] == [i.kwargs.keys() for i in there.prompt.items]
    talk = [{"role": "user", "content": [{"type": "image", "image": file_of(64)}, {"type": "text", "text": "what?"}]}]
    assert result(await last(client.chat(talk, SHORT))) == result(llava.chat(talk, SHORT)[0])
    with_object = {"prompt": "a <image> b", "multi_modal_data": {"image": picture(5)}}  # which cannot be sent
    assert result(await last(client.generate(with_object, SHORT))) == expected(llava, with_object, SHORT)


async def test_errors_there_are_errors_here(client: EngineClient) -> None:
    pid = pid_of(client)
    with pytest.raises(MediaDecodeError) as caught:
        await last(client.generate({"prompt": "<image>", "multi_modal_data": {"image": b"no picture"}}, SHORT))
    assert caught.value.status == 400
    with pytest.raises(InvalidRequestError, match="half a character"):
        await last(client.generate("half \ud800", SHORT))
    with pytest.raises(InvalidRequestError, match="a tool is"):
        await last(client.chat([{"role": "user", "content": "hi"}], SHORT, tools=[1]))
    with pytest.raises(PluginRuntimeError, match="a fault of the processor's") as broken:
        await last(client.generate(with_file(RAISE), SHORT))
    assert broken.value.hook
    assert pid_of(client) == pid


async def test_R072_a_processor_that_hangs_is_ended_with_its_process(
    client: EngineClient,
    llava: LLM,
    bad_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = asyncio.create_task(last(client.generate(prompt_ids(3, 9), LONG)))
    pid, restarts = pid_of(client), client.stats().input_restarts
    real = _Slot._answer

    def answer(slot: _Slot, timeout: float) -> Any:
        until = time.monotonic() + PATIENCE
        while not (bad_folder / f"{HANGING}-{SLEEP}").exists():  # its time begins when it hangs
            assert time.monotonic() < until
            time.sleep(0.01)
        return real(slot, timeout)

    monkeypatch.setattr(input_pool, "DUMP_SECONDS", PATIENCE)
    client.engine.pool.timeout = 0.2  # type: ignore[union-attr]
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(_Slot, "_answer", answer)
        with pytest.raises(RequestTimeoutError, match="processing") as caught:
            await last(client.generate(with_file(SLEEP), SHORT))
    assert caught.value.status == 504
    assert "a_bad_processor.py" in caplog.text, "its stacks"
    assert result(await other) == expected(llava, prompt_ids(3, 9), LONG)
    client.engine.pool.timeout = TIMEOUT  # type: ignore[union-attr]
    assert result(await last(client.generate(with_file(70), SHORT))) == expected(llava, with_file(70), SHORT)
    assert pid_of(client) != pid
    assert client.stats().input_restarts == restarts + 1
    assert client.stats().restarts == 0


async def test_R043_what_breaks_the_decoder_breaks_nothing_else(client: EngineClient, llava: LLM) -> None:
    waiting = [asyncio.create_task(last(client.generate(p, SHORT))) for p in (with_file(ABORT), "hello", with_file(70))]
    broken, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(broken, MediaDecodeError)
    assert (broken.code, broken.status) == ("media_decode_failed", 400)
    assert [result(o) for o in others] == [expected(llava, p, SHORT) for p in ("hello", with_file(70))]  # type: ignore[arg-type]
    assert client.stats().restarts == 0


async def test_a_process_that_was_killed_while_it_had_nothing_to_do_is_replaced(
    client: EngineClient, llava: LLM
) -> None:
    (slot,) = client.engine.pool._slots  # type: ignore[union-attr]
    child = slot._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    await until(child.has_ended)
    assert result(await last(client.generate("hello", SHORT))) == expected(llava, "hello", SHORT)


async def test_R017_a_prompt_that_holds_the_interpreter_holds_neither_the_loop_nor_a_step(
    client: EngineClient, bad_folder: Path
) -> None:
    pipe = os.open(bad_folder / HELD, os.O_RDWR)
    try:
        held = asyncio.create_task(last(client.generate(with_file(HOLD), SHORT)))
        await until((bad_folder / f"{HANGING}-{HOLD}").exists)
        for seed in range(10):  # each is done while that one is not
            assert (await last(client.generate(prompt_ids(seed, 9), SHORT))).finished
            assert client.stats().processing == 1
        os.write(pipe, b"!")
        assert (await held).finished
    finally:
        os.close(pipe)


async def test_closing_ends_what_is_being_processed(llava_folder: Path) -> None:
    client = await EngineClient.create(str(llava_folder), input_processes=1, **OPTIONS)
    assert (await last(client.generate("hello", SHORT))).finished
    os.kill(pid_of(client), signal.SIGSTOP)  # nothing is done before it is closed
    waiting = [asyncio.create_task(last(client.generate(with_file(60 + i), SHORT))) for i in range(8)]
    await until(lambda: client.stats().processing == 8)
    async with asyncio.timeout(PATIENCE):
        await client.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [EngineDeadError] * 8


async def test_parsers_of_tools_cross(llava: LLM) -> None:
    tokenizer = llava.get_tokenizer()
    made = llava.engine.inputs.process("hello")._replace(tools=ToolParser(FORMATS[1], ["b", "a"], tokenizer))
    codec = wire.Codec(wire.FromInputs)
    found = read_prompt(codec.decode(codec.encode(write_prompt(made))), tokenizer)
    assert found.tools is not None
    assert (found.tools.form, found.tools.names) == (FORMATS[1], {"a", "b"})

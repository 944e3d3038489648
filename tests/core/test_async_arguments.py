"""What no caller of `AsyncLLM` may give: it ends the call that gave it, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import LLM, AsyncLLM
from core.errors import InvalidRequestError, OverloadedError

from .conftest import GREEDY
from .gate import begun, hold, until
from .test_async_llm import expected, last, result

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def allm(llama_folder: Path) -> Iterator[AsyncLLM]:
    llm = AsyncLLM(str(llama_folder), dtype="float32", block_size=16, max_num_seqs=1)
    yield llm
    llm._thread.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *(({"priority": bad}, "priority must be a whole number") for bad in (None, "high", 1.5, True, 10**30)),
        *(({"timeout": bad}, "timeout must be ") for bad in ("3", True, 0, -1, float("nan"), -(10**400), 1j)),
        *(({"request_id": bad}, "request_id must be a string") for bad in (["a"], 5)),
    ],
)
async def test_a_wrong_argument_ends_its_own_request(
    allm: AsyncLLM, llama: LLM, arguments: dict[str, Any], says: str
) -> None:
    with hold(allm) as gate:
        healthy = [asyncio.create_task(last(allm.generate("hello", GREEDY))) for _ in range(2)]
        await begun(allm, 2)  # one will run, and the other wait beside the wrong one
        with pytest.raises(InvalidRequestError, match=says) as caught:
            await last(allm.generate("hello", GREEDY, **arguments))
        assert [caught.value.param] == list(arguments)
        await gate.take(1)
    wanted = expected(llama, "hello", GREEDY)
    assert [result(output) for output in await asyncio.gather(*healthy)] == [wanted] * 2
    assert result(await last(allm.generate("hello", GREEDY))) == wanted
    assert not allm._streams


async def test_the_bounds_themselves_serve(allm: AsyncLLM, llama: LLM) -> None:
    for priority, timeout in ((-(2**63), 10**400), (2**63 - 1, float("inf")), (0, None)):
        found = await last(allm.generate("hello", GREEDY, request_id="", timeout=timeout, priority=priority))
        assert result(found) == expected(llama, "hello", GREEDY)


async def test_R087_requests_of_several_prompts_wait_like_any_other(llama_folder: Path) -> None:
    async with await AsyncLLM.create(
        str(llama_folder), dtype="float32", block_size=16, task="embed", max_queued_requests=3
    ) as llm:
        with hold(llm):
            burst = [asyncio.create_task(llm.embed(["hello", "you"])) for _ in range(20)]
            await until(lambda: sum(task.done() for task in burst) == 17)
            assert all(isinstance(task.exception(), OverloadedError) for task in burst[3:])
        assert [len(made) for made in await asyncio.gather(*burst[:3])] == [2, 2, 2]
        for wrong in ({"priority": "high"}, {"timeout": "3"}):
            with pytest.raises(InvalidRequestError):
                await llm.embed(["hello"], **wrong)
        assert not llm._wholes

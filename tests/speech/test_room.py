"""Memory that the clips of all requests share."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from core.transcription.room import Room, Share

pytestmark = pytest.mark.asyncio


def asked(room: Room, size: int) -> asyncio.Task[Share]:
    return asyncio.create_task(room.take(size))


async def turns() -> None:
    """All that can go on without anybody's help has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_finds_no_room_waits_first_come_first_served() -> None:
    room = Room(10)
    with await room.take(6) as first:
        large, small = asked(room, 8), asked(room, 1)
        await turns()
        assert not large.done()
        assert not small.done()  # it would fit, but is not before its turn: the large one would wait for ever
        first.keep(2)
        assert room.taken == 10
        await turns()
        assert large.done()
        assert not small.done()
    with await large, await small:
        assert room.taken == 9
    assert room.taken == 0


async def test_what_is_larger_than_the_room_goes_alone() -> None:
    room = Room(10)
    with await room.take(50):
        other = asked(room, 1)
        await turns()
        assert not other.done()
    with await other:
        giant = asked(room, 50)
        await turns()
        assert not giant.done()
    with await giant:
        assert room.taken == 50
    assert room.taken == 0


@pytest.mark.parametrize("its_turn_has_come", [False, True])
async def test_who_is_cancelled_keeps_nothing_and_nobody_waiting(its_turn_has_come: bool) -> None:
    room = Room(10)
    with await room.take(10):
        cancelled, waiting = asked(room, 10), asked(room, 10)
        await turns()
        if not its_turn_has_come:
            cancelled.cancel()
    if its_turn_has_come:  # it has been told, and has not run yet
        assert room.taken == 10
        cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with await waiting:
        assert room.taken == 10
    assert room.taken == 0


async def test_a_loop_that_was_closed_keeps_nobody_waiting() -> None:
    room = Room(10)
    with await room.take(10):
        left: list[Any] = []

        def elsewhere() -> None:
            loop = asyncio.new_event_loop()
            left.append(loop.create_task(room.take(10)))
            loop.run_until_complete(turns())
            loop.close()

        await asyncio.to_thread(elsewhere)
        waiting = asked(room, 10)
        await turns()
    with await waiting:
        left[0].get_coro().close()
        assert room.taken == 10
    del left[0]
    gc.collect()
    assert room.taken == 0


async def test_takers_may_live_in_several_event_loops() -> None:
    room, most = Room(3), []

    async def use() -> None:
        for _ in range(50):
            with await room.take(2) as share:
                most.append(room.taken)
                share.keep(1)
                await asyncio.sleep(0)

    async def several() -> None:
        await asyncio.gather(*(use() for _ in range(4)))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, several()) for _ in range(3)), several())
    assert max(most) <= 3
    assert room.taken == 0

import asyncio
from collections.abc import AsyncIterator

import pytest

from cache_server.flight import Flights
from hotshard.core.errors import Overloaded


@pytest.fixture
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def test_equal_questions_share_one_answer(group):
    flights: Flights[str, int] = Flights(group.create_task)
    started, release = [], asyncio.Event()

    async def work() -> int:
        started.append(1)
        await release.wait()
        return 7

    tasks = [group.create_task(flights.join("k", work)) for _ in range(10)]
    await asyncio.sleep(0)
    release.set()
    assert [await task for task in tasks] == [7] * 10
    assert len(started) == 1


async def test_a_cancelled_caller_takes_nobody_else_down_not_even_the_first(group):
    flights: Flights[str, int] = Flights(group.create_task)
    release = asyncio.Event()

    async def work() -> int:
        await release.wait()
        return 7

    first, second = (group.create_task(flights.join("k", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    release.set()
    assert await second == 7


async def test_whoever_waits_for_work_that_is_cancelled_is_told_and_may_ask_again(group):
    flights = Flights(group.create_task)

    async def cancelled():
        raise asyncio.CancelledError

    for _ in range(2):
        asking = asyncio.create_task(flights.join("k", cancelled))
        with pytest.raises(Overloaded, match="given up"):
            await asking


async def test_an_error_reaches_all_and_is_not_remembered(group):
    flights: Flights[str, int] = Flights(group.create_task)

    async def fail() -> int:
        raise KeyError("x")

    async def work() -> int:
        return 1

    answers = [group.create_task(_outcome(flights.join("k", fail))) for _ in range(3)]
    assert [type(await a) for a in answers] == [KeyError] * 3
    assert await flights.join("k", work) == 1


async def _outcome(work):
    try:
        return await work
    except KeyError as error:
        return error

"""Coroutines run in another thread: outcomes, cancellation, and an orderly end."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from cache_server.origins.reactor import Reactor


@pytest.fixture
async def reactor() -> AsyncIterator[Reactor]:
    made = Reactor("test")
    made.start()
    yield made
    await made.close()
    await made.close()


async def test_results_and_errors_come_back(reactor: Reactor) -> None:
    async def where() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("x")

    assert await reactor.run(where) == "test"
    with pytest.raises(KeyError):
        await reactor.run(fail)
    assert reactor.in_flight == 0


async def test_many_at_once(reactor: Reactor) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(reactor.run(lambda number=number: double(number)))  # type: ignore[misc]
            for number in range(500)
        ]
    assert [task.result() for task in tasks] == [2 * number for number in range(500)]


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_caller_waits_until_the_work_has_ended(
    reactor: Reactor, turns: int
) -> None:
    """Whenever it is cancelled, and however often."""
    began = ended = 0

    async def work() -> None:
        nonlocal began, ended
        began += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended += 1

    async with asyncio.TaskGroup() as group:
        task = group.create_task(reactor.run(work))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert began == ended
    assert reactor.in_flight == 0


async def test_work_that_ends_all_the_same_does_not_undo_the_cancellation(
    reactor: Reactor,
) -> None:
    started = threading.Event()

    async def stubborn() -> int:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 5

    async with asyncio.TaskGroup() as group:
        task = group.create_task(reactor.run(stubborn))
        await asyncio.to_thread(started.wait, 20)
        task.cancel()
    assert task.cancelled()


async def test_the_end_cancels_what_runs() -> None:
    reactor = Reactor("test")
    reactor.start()
    started = threading.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(reactor.run(work))
        await asyncio.to_thread(started.wait, 20)
        await reactor.close()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_one_that_never_started_is_closed() -> None:
    await Reactor("test").close()


async def test_what_is_posted_ends_here(reactor: Reactor) -> None:
    """Begun over there: ended later, as a coroutine, or at once by an error; in any number."""
    outcomes: list[object] = []
    all_there = asyncio.Event()

    def landed(outcome: object) -> None:
        outcomes.append(outcome if isinstance(outcome, int) else type(outcome))
        if len(outcomes) == 300:
            all_there.set()
        if outcome == 7:
            raise ZeroDivisionError  # a defect here takes nobody else's outcome with it

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        if number % 2:
            raise KeyError(number)
        return number

    def begin_later(number: int, ended: Callable[[int | Exception], None]) -> None:
        asyncio.get_running_loop().call_soon(ended, number)

    def fail(_: object) -> None:
        raise OSError

    for number in range(100):
        reactor.post(partial(begin_later, number), landed)
        reactor.post(lambda _, number=number: work(number), landed)  # type: ignore[misc]
        reactor.post(fail, landed)
    await all_there.wait()
    assert outcomes.count(OSError) == 100
    assert outcomes.count(KeyError) == 50
    assert sorted(o for o in outcomes if isinstance(o, int)) == sorted(
        [*range(100), *range(0, 100, 2)]
    )
    assert reactor.in_flight == 0

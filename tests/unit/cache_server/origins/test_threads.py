"""Blocking calls in threads."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from cache_server.origins.threads import Threads


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads(4, "test")
    yield made
    made.close()


async def test_every_call_has_its_own_outcome(threads: Threads) -> None:
    jobs = [threads.submit(lambda i=i: i * i) for i in range(2000)]  # type: ignore[misc]
    assert [await job.future for job in jobs] == [i * i for i in range(2000)]

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await threads.submit(fail).future


async def test_calls_run_side_by_side_up_to_the_limit(threads: Threads) -> None:
    together = threading.Barrier(4)
    jobs = [threads.submit(lambda: together.wait(30)) for _ in range(4)]
    assert sorted([await job.future for job in jobs]) == [0, 1, 2, 3]
    assert len(threads._threads) == 4
    await threads.submit(int).future
    assert len(threads._threads) == 4


async def test_threads_start_only_as_they_are_needed(threads: Threads) -> None:
    for _ in range(10):
        await threads.submit(int).future
    assert len(threads._threads) == 1


async def test_a_call_that_has_not_begun_can_be_taken_back() -> None:
    threads = Threads(1, "test")
    release, ran = threading.Event(), []
    blocker = threads.submit(lambda: release.wait(30))
    queued = threads.submit(lambda: ran.append(1))
    assert queued.cancel()
    release.set()
    assert await blocker.future
    await queued.future
    assert not ran
    assert not blocker.cancel()
    threads.close()


async def test_closing_ends_the_threads_after_what_is_queued() -> None:
    threads = Threads(2, "test")
    jobs = [threads.submit(lambda i=i: i) for i in range(50)]  # type: ignore[misc]
    threads.close()
    threads.close()
    assert [await job.future for job in jobs] == list(range(50))
    for thread in threads._threads:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()

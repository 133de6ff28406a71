"""Work in threads that can be called off, and the way into a target file."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from cache_server.origins.origin import Target
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import Aborted, FileSink, TargetFailed, Transfer, in_thread
from hotshard.core.checksum import Algorithm, checksum


@pytest.fixture
async def pool() -> AsyncIterator[Threads]:
    made = Threads(1, "test")
    yield made
    made.close()


async def test_results_and_errors_come_back(pool: Threads) -> None:
    assert await in_thread(pool, lambda: 5, Transfer()) == 5

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_thread(pool, fail, Transfer())


async def test_cancelling_waits_until_the_thread_has_stopped(pool: Threads) -> None:
    """However often it is cancelled."""
    transfer, started, may_stop = Transfer(), threading.Event(), threading.Event()
    stopped = False

    def work() -> None:
        nonlocal stopped
        started.set()
        may_stop.wait(30)
        stopped = True
        raise OSError("nobody hears this")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(pool, work, transfer))
        await asyncio.to_thread(started.wait, 30)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert transfer.aborted
        assert not task.done()
        may_stop.set()
    assert task.cancelled()
    assert stopped


async def test_work_that_has_not_begun_is_taken_back(pool: Threads) -> None:
    release, ran = threading.Event(), []
    async with asyncio.TaskGroup() as group:
        blocker = group.create_task(in_thread(pool, lambda: release.wait(30), Transfer()))
        queued = group.create_task(in_thread(pool, lambda: ran.append(1), Transfer()))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        release.set()
        assert await blocker
    assert ran == []


async def test_a_thread_that_hangs_is_waited_for_only_so_long(pool: Threads) -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await in_thread(pool, lambda: release.wait(30), Transfer(), grace_s=0.02)
    release.set()


def test_an_abort_wakes_up_who_reads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transfer = Transfer()
        transfer.attach(ours)
        thread = threading.Thread(target=transfer.abort)
        thread.start()
        assert ours.recv(1) == b""
        thread.join()
        with pytest.raises(Aborted):
            transfer.attach(ours)


def test_the_sink_writes_and_sums() -> None:
    fd = os.memfd_create("target")
    sink = FileSink(Target(fd, 10), Algorithm.CRC32C, Transfer())
    for piece in (b"abc", b"", b"defg"):
        sink(memoryview(piece))
    assert os.pread(fd, 100, 0) == bytes(10) + b"abcdefg"
    assert sink.sum.value() == checksum(Algorithm.CRC32C, b"abcdefg")
    os.close(fd)


def test_the_sink_takes_nothing_after_an_abort() -> None:
    fd = os.memfd_create("target")
    transfer = Transfer()
    sink = FileSink(Target(fd, 0), Algorithm.XXH3_64, transfer)
    transfer.abort()
    with pytest.raises(Aborted):
        sink(memoryview(b"abc"))
    assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_a_full_disk_is_told_apart_from_a_broken_network() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    read, write = os.pipe()  # no pwrite there
    for fd in (full, write):
        with pytest.raises(TargetFailed) as caught:
            FileSink(Target(fd, 0), Algorithm.XXH3_64, Transfer())(memoryview(b"abc"))
        assert isinstance(caught.value.error, OSError)
    for fd in (full, read, write):
        os.close(fd)

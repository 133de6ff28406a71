"""The async client: many tasks, cancellation, loops, disks that would block."""

import asyncio
import os
import pickle
from collections.abc import AsyncIterator

import pytest

import hotshard
from hotshard import aio
from hotshard.openfile import OpenFile
from support.fake_server import FakeServer, FakeStore

URI = "s3://bucket/object"


@pytest.fixture
async def cache(server: FakeServer) -> AsyncIterator[aio.AsyncClient]:
    async with aio.connect(server.address) as cache:
        yield cache


async def test_many_tasks_share_one_conversation(
    cache: aio.AsyncClient, server: FakeServer, store: FakeStore
):
    contents = {f"s3://bucket/{i}": os.urandom(3000) for i in range(300)}
    for uri, data in contents.items():
        store.put(uri, data)

    async def read(uri: str, data: bytes) -> None:
        assert await cache.read(uri) == data

    async with asyncio.TaskGroup() as group:
        for uri, data in contents.items():
            group.create_task(read(uri, data))
    assert server.calls["hello"] == 1


async def test_a_cancelled_read_disturbs_no_other(
    cache: aio.AsyncClient, server: FakeServer, store: FakeStore
):
    store.put(URI, b"hello")
    server.tricks.append("silence")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(cache.read(URI))
        while not server.calls["open"]:
            await asyncio.sleep(0)
        waiting.cancel()
    assert await cache.read(URI) == b"hello"
    assert server.calls["hello"] == 1


async def test_every_waiter_survives_a_restart(
    cache: aio.AsyncClient, server: FakeServer, store: FakeStore
):
    for i in range(50):
        store.put(f"s3://bucket/{i}", bytes([i]) * 10)

    async def read(i: int) -> None:
        assert await cache.read(f"s3://bucket/{i}") == bytes([i]) * 10

    async with asyncio.TaskGroup() as group:
        for i in range(50):
            group.create_task(read(i))
        await asyncio.to_thread(server.restart)


@pytest.mark.parametrize("trick", ["garbage", "no files"])
async def test_a_bad_answer_is_a_typed_error(
    cache: aio.AsyncClient, server: FakeServer, store: FakeStore, trick: str
):
    store.put(URI, b"hello")
    server.tricks.append(trick)
    with pytest.raises(hotshard.InternalError):
        await cache.read(URI)
    assert await cache.read(URI) == b"hello"


async def test_closing_ends_what_is_under_way(server: FakeServer, store: FakeStore):
    store.put(URI, b"hello")
    cache = aio.connect(server.address)
    await cache.check()
    server.tricks.append("silence")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(failing(cache))
        while not server.calls["open"]:
            await asyncio.sleep(0)
        await cache.close()
    assert isinstance(waiting.result(), hotshard.InvalidRequest)


async def failing(cache: aio.AsyncClient) -> BaseException:
    with pytest.raises(hotshard.HotshardError) as caught:
        await cache.read(URI)
    return caught.value


def test_one_client_on_one_loop_after_another(server: FakeServer, store: FakeStore):
    store.put(URI, b"hello")
    cache = aio.connect(server.address)

    async def main() -> None:
        assert (await cache.status()).ready

    asyncio.run(main())
    asyncio.run(main())
    assert server.calls["hello"] == 2
    asyncio.run(cache.close())


async def test_no_server(tmp_path: object):
    with pytest.raises(hotshard.ServerUnavailable):
        async with aio.connect(f"unix://{tmp_path}/none", direct="never"):
            raise AssertionError


async def test_pickling(cache: aio.AsyncClient, store: FakeStore):
    store.put(URI, b"hello")
    async with pickle.loads(pickle.dumps(cache)) as copy:
        assert await copy.read(URI) == b"hello"


async def test_a_file(cache: aio.AsyncClient, store: FakeStore):
    data = os.urandom(5000)
    info = store.put(URI, data, shard_bytes=1000)
    async with await cache.open(URI) as file:
        assert (file.size, file.version, file.name, file.info) == (5000, info.version, URI, info)
        assert await file.read(10) == data[:10]
        assert file.tell() == 10
        assert file.seek(-5, os.SEEK_END) == 4995
        assert await file.read() == data[-5:]
        buffer = bytearray(3000)
        assert await file.readinto_at(buffer, 500) == 3000
        assert buffer == data[500:3500]
        assert await file.read_at(4990, 100) == data[4990:]
        with pytest.raises(hotshard.InvalidRequest):
            await file.read_at(-1)
    for call in (file.read, file.read_at):
        with pytest.raises(ValueError, match="closed"):
            await call(1)
    with pytest.raises(ValueError, match="closed"):
        file.seek(0)


async def test_reads_leave_the_loop_when_the_bytes_are_not_at_hand(
    cache: aio.AsyncClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
):
    """As when RWF_NOWAIT finds nothing in the page cache, or the file system does not know it."""
    data = os.urandom(3000)
    store.put(URI, data)
    tried: list[int] = []

    def nothing(file: OpenFile, _view: object, _offset: int) -> int:
        tried.append(file.fd)
        return 0

    monkeypatch.setattr(aio, "_read_now", nothing)
    assert await cache.read(URI) == data
    buffer = bytearray(3000)
    assert await cache.read_into(URI, buffer) == 3000
    assert buffer == data
    assert tried


async def test_big_reads_leave_the_loop(cache: aio.AsyncClient, store: FakeStore):
    data = os.urandom(aio.INLINE_BYTES + 5)
    store.put(URI, data)
    assert await cache.read(URI) == data
    buffer = bytearray(len(data))
    assert await cache.read_into(URI, buffer) == len(data)
    assert buffer == data

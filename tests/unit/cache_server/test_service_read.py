"""Read of the gRPC service: the range and nothing else, one version, little at a time."""

import asyncio
import os
from typing import Any

import grpc
import pytest

from cache_server import service as service_module
from cache_server.service import MESSAGE_BYTES
from hotshard.core.errors import InvalidRequest, Overloaded, StaleObject
from hotshard.openfile import OpenFile
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import types_pb2
from support.service import CONTENT, SHARD_BYTES, SIZE, URI, FakeCache, Scene, refusal, serving
from support.waiting import comes


@pytest.fixture
async def scene(tmp_path):
    async with serving(str(tmp_path)) as found:
        yield found


async def read(scene: Scene, offset: int = 0, length: int = 0, **more: Any) -> list[pb.ReadReply]:
    request = pb.ReadRequest(uri=more.pop("uri", URI), offset=offset, length=length, **more)
    return [reply async for reply in scene.stub.Read(request)]


RANGES = [
    (0, 0),
    (0, 1),
    (0, SIZE),
    (1, MESSAGE_BYTES),
    (SHARD_BYTES - 1, 2),
    (SHARD_BYTES, SHARD_BYTES),
    (SIZE - 1, 1),
    (SIZE - 1, 1 << 62),
    (SIZE, 0),
    (SIZE, 10),
    (1 << 62, 0),
    (12_345, 3 * SHARD_BYTES),
]


@pytest.mark.parametrize(("offset", "length"), RANGES)
@pytest.mark.parametrize("partial_bytes", [0, 700_001])
async def test_read_gives_exactly_the_range(scene, offset, length, partial_bytes):
    scene.cache.partial_bytes = partial_bytes
    replies = await read(scene, offset, length)
    expected = CONTENT[offset : offset + length] if length else CONTENT[offset:]
    assert b"".join(reply.data for reply in replies) == expected
    assert [reply.HasField("object") for reply in replies] == [True] + [False] * (len(replies) - 1)
    assert replies[0].object.size_bytes == SIZE
    assert all(len(reply.data) <= MESSAGE_BYTES for reply in replies)
    assert scene.metrics.snapshot()['hotshard_sent_bytes_total{path="grpc"}'] == len(expected)


async def test_an_empty_object_has_one_message(scene):
    (reply,) = await read(scene, uri="s3://bucket/empty")
    assert (reply.object.size_bytes, reply.data) == (0, b"")


async def test_little_is_opened_at_one_time(scene):
    await read(scene)
    assert all(length <= service_module.AHEAD_BYTES for _, _, length in scene.cache.calls)


async def test_a_version_that_is_gone_is_stale(scene):
    code, error = await refusal(scene.stub.Read(pb.ReadRequest(uri=URI, version="v0")).read())
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert isinstance(error, StaleObject)


async def test_a_read_never_mixes_versions(scene):
    scene.cache.partial_bytes = MESSAGE_BYTES // 2
    call = scene.stub.Read(pb.ReadRequest(uri=URI))
    first = await call.read()
    assert first.object.version == "v1"
    scene.cache.version = "v2"
    received = first.data

    async def rest() -> None:
        nonlocal received
        while (reply := await call.read()) is not grpc.aio.EOF:
            received += reply.data

    code, error = await refusal(rest())
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert isinstance(error, StaleObject)
    assert CONTENT.startswith(received)


@pytest.mark.parametrize(
    ("offset", "length"), [(1 << 63, 0), ((1 << 64) - 1, 1), (1, (1 << 63) - 1), (0, (1 << 64) - 1)]
)
async def test_ranges_beyond_any_file_are_refused(scene, offset, length):
    request = pb.ReadRequest(uri=URI, offset=offset, length=length)
    code, error = await refusal(scene.stub.Read(request).read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, InvalidRequest)
    assert scene.cache.calls == []


async def test_reads_are_limited_and_a_cancelled_one_makes_room(scene, monkeypatch):
    monkeypatch.setattr(service_module, "READS_MAX", 1)
    scene.cache.gate = asyncio.Event()
    held = scene.stub.Read(pb.ReadRequest(uri=URI))
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(held.read())
        while not scene.cache.calls:
            await asyncio.sleep(0)
        code, error = await refusal(scene.stub.Read(pb.ReadRequest(uri=URI)).read())
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(error, Overloaded)
        assert error.retry_after_s > 0
        held.cancel()
        reading.cancel()
    await scene.cache.cancelled.wait()
    scene.cache.gate.set()
    assert b"".join(reply.data for reply in await read(scene)) == CONTENT
    found = scene.metrics.snapshot()
    assert found['hotshard_requests_total{code="cancelled",method="Read",path="grpc"}'] == 1


async def test_a_deadline_ends_the_work(scene):
    scene.cache.gate = asyncio.Event()
    while not scene.cache.calls:  # on a busy machine the time may be over before work begins
        call = scene.stub.Read(pb.ReadRequest(uri=URI), timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await scene.cache.cancelled.wait()


async def test_a_reader_that_takes_nothing_is_given_up(tmp_path):
    async with serving(str(tmp_path), stall_s=1.0) as scene:
        scene.cache.content[URI] = bytes(200 << 20)
        call = scene.stub.Read(pb.ReadRequest(uri=URI))
        await call.read()
        key = 'hotshard_requests_total{code="overloaded",method="Read",path="grpc"}'
        await comes(lambda: scene.metrics.snapshot()[key])
        sent = scene.metrics.snapshot()['hotshard_sent_bytes_total{path="grpc"}']
        assert sent < 50 << 20
        call.cancel()
        # The server is none the worse for it.
        assert (await scene.stub.Stat(types_pb2.StatRequest(uri=URI))).uri == URI


async def test_a_cached_file_that_is_too_short_is_corrupt_not_endless(scene, monkeypatch):
    monkeypatch.setattr(scene.cache, "_file", lambda data: _empty(scene.cache))
    code, error = await refusal(scene.stub.Read(pb.ReadRequest(uri=URI)).read())
    assert code is grpc.StatusCode.INTERNAL
    assert "ends before offset 0" in str(error)


def _empty(cache: FakeCache) -> OpenFile:
    return OpenFile(os.open(cache._directory, os.O_TMPFILE | os.O_RDWR))

"""The gRPC service over real sockets, with a cache of temp files behind it."""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from cache_server import service as service_module
from cache_server.answer import ERROR_KEY
from cache_server.cluster.answers import Alone, Locating
from cache_server.config import GrpcConfig, HostPort
from cache_server.grpc_server import GrpcServer
from cache_server.metrics import Metrics
from cache_server.opened import Explanation, FileExtent, Opened, ShardState
from cache_server.origins.origin import ListPage
from cache_server.requests import Requests
from cache_server.service import MESSAGE_BYTES, CacheService
from cache_server.store.shard import ShardKey
from cache_server.warm import WarmState
from hotshard.core.blocks import Geometry
from hotshard.core.errors import (
    BY_CODE,
    GRPC_STATUS,
    CorruptData,
    HotshardError,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    StaleObject,
    code_name,
)
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import error_from_pb, info_to_pb

URI = "s3://bucket/object"
SIZE = 5 * MESSAGE_BYTES + 12_345
SHARD_BYTES = 5 << 18  # 1.25 MiB: messages and shards do not line up
CONTENT = random.Random(5).randbytes(SIZE)


class FakeCache:
    """Objects cut into temp files; `open` gives sealed shards, or only the range when `partial`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.version = "v1"
        self.failure: Exception | None = None
        self.partial_bytes = 0
        self.gate: asyncio.Event | None = None
        self.cancelled = asyncio.Event()
        self.calls: list[tuple[Any, ...]] = []
        self.content = {URI: CONTENT, "s3://bucket/empty": b""}

    def _info(self, uri: str) -> ObjectInfo:
        if self.failure is not None:
            raise self.failure
        if uri not in self.content:
            raise NotFound(f"{uri} is not there", uri=uri)
        return ObjectInfo(uri, self.version, len(self.content[uri]), 1_700_000_000_000_000_001)

    def _file(self, data: bytes) -> OpenFile:
        fd = os.open(self._directory, os.O_TMPFILE | os.O_RDWR)
        os.write(fd, data)
        return OpenFile(fd)

    async def stat(self, uri: str, *, forwarded: bool = False) -> ObjectInfo:
        return self._info(uri)

    async def stat_many(self, uris: Sequence[str]) -> list[ObjectInfo | HotshardError]:
        answers: list[ObjectInfo | HotshardError] = []
        for uri in uris:
            try:
                answers.append(self._info(uri))
            except HotshardError as error:
                answers.append(error)
        return answers

    async def list_page(
        self,
        prefix: str,
        *,
        recursive: bool,
        token: str,
        page_size: int,
        forwarded: bool = False,
    ) -> ListPage:
        self.calls.append(("list", prefix, recursive, token, page_size))
        info = self._info(URI)
        number = int(token or 0)
        common = [] if recursive else [f"{prefix}sub/"]
        return ListPage([info], common, str(number + 1) if number < 2 else "")

    async def open(
        self, uri: str, version: str, offset: int, length: int, *, forwarded: bool = False
    ) -> Opened:
        self.calls.append(("open", offset, length))
        info = self._info(uri)
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if version not in {"", info.version}:
            raise StaleObject(f"{uri} changed", uri=uri)
        stop = min(offset + length, info.size)
        if offset >= stop:
            return Opened(info, (), 0.0)
        if self.partial_bytes:
            stop = min(stop, offset + self.partial_bytes)
            file = self._file(b"...." + self.content[uri][offset:stop])
            return Opened(info, (FileExtent(offset, stop - offset, file, 4, sealed=False),), 0.0)
        first, last = offset // SHARD_BYTES, (stop - 1) // SHARD_BYTES
        extents = []
        for start in range(first * SHARD_BYTES, (last + 1) * SHARD_BYTES, SHARD_BYTES):
            data = self.content[uri][start : start + SHARD_BYTES]
            extents.append(FileExtent(start, len(data), self._file(data), 0, sealed=True))
        return Opened(info, tuple(extents), 60.0)

    async def pin(self, uri: str) -> list[str]:
        self.calls.append(("pin", uri))
        return [uri]

    async def unpin(self, uri: str) -> list[str]:
        self.calls.append(("unpin", uri))
        return []

    async def evict(self, uri: str, *, include_pinned: bool = False) -> tuple[int, int]:
        self.calls.append(("evict", uri, include_pinned))
        return 3, 1 << 40

    async def invalidate(self, uri: str) -> int:
        self.calls.append(("invalidate", uri))
        return 7

    async def explain(self, uri: str) -> Explanation:
        info = self._info(uri)
        key = ShardKey.of(info, 1, Geometry(SHARD_BYTES, SHARD_BYTES))
        shard = ShardState(key, "partial", 10, "/nvme", pinned=True, verified=False)
        return Explanation(info, "s3://bucket/", 1.5, 2.5, [shard], "evicted")


class FakeWarmer:
    """One job that is done at the third look."""

    def __init__(self) -> None:
        self.looks = 0
        self.waits: list[float] = []

    def start(self, uris: Sequence[str]) -> str:
        return f"job of {len(uris)}"

    async def progress(self, job_id: str, wait_s: float) -> WarmState:
        if not job_id.startswith("job"):
            raise NotFound(f"no warm-up {job_id!r}")
        self.looks += 1
        self.waits.append(wait_s)
        return WarmState(
            job_id=job_id,
            listing=self.looks < 2,
            planned_objects=3,
            planned_bytes=30,
            resident_objects=self.looks,
            resident_bytes=10 * self.looks,
            failed_objects=1,
            failed_bytes=5,
            failures=(NotFound("gone", uri="s3://bucket/x"),),
            done=self.looks >= 3,
        )


class FakeStatuses:
    def status(self, *, brief: bool = False) -> types_pb2.StatusReply:
        return types_pb2.StatusReply(node_id="n1", ready=True)


@dataclass
class Scene:
    cache: FakeCache
    warmer: FakeWarmer
    metrics: Metrics
    stub: "cache_pb2_grpc.CacheAsyncStub"


@asynccontextmanager
async def serving(directory: str, stall_s: float = 60.0) -> AsyncIterator[Scene]:
    cache, warmer, metrics = FakeCache(directory), FakeWarmer(), Metrics("1")
    members = Alone(Locating(Geometry()))
    service = CacheService(
        cache, warmer, FakeStatuses(), Requests(metrics), members=members, stall_s=stall_s
    )
    server = GrpcServer(GrpcConfig(listen=HostPort("127.0.0.1", 0)), service)
    await server.start()
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)
    try:
        yield Scene(cache, warmer, metrics, cache_pb2_grpc.CacheStub(channel))
    finally:
        await channel.close()
        await server.close(0.0)


@pytest.fixture
async def scene(tmp_path):
    async with serving(str(tmp_path)) as found:
        yield found


async def read(scene: Scene, offset: int = 0, length: int = 0, **more: Any) -> list[pb.ReadReply]:
    request = pb.ReadRequest(uri=more.pop("uri", URI), offset=offset, length=length, **more)
    return [reply async for reply in scene.stub.Read(request)]


async def refusal(call: Any) -> tuple[grpc.StatusCode, HotshardError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), error_from_pb(types_pb2.Error.FromString(trailers[ERROR_KEY]))


# -- everything but Read -------------------------------------------------------------------------


async def test_stat(scene):
    info = await scene.stub.Stat(types_pb2.StatRequest(uri=URI))
    assert info == info_to_pb(ObjectInfo(URI, "v1", SIZE, 1_700_000_000_000_000_001))


async def test_stat_many_answers_each_in_order(scene):
    uris = [URI, "s3://bucket/absent", "s3://bucket/empty"]
    reply = await scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris))
    assert [bool(result.object.uri) for result in reply.results] == [
        True,
        False,
        True,
    ]
    assert isinstance(error_from_pb(reply.results[1].error), NotFound)


async def test_batches_are_limited(scene):
    uris = [URI] * 1001
    for call in (
        scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris)),
        scene.stub.Prefetch(types_pb2.PrefetchRequest(uris=uris)).read(),
    ):
        code, error = await refusal(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "at most 1000" in str(error)
    assert (
        len((await scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris[1:]))).results) == 1000
    )


async def test_list_goes_on_to_the_last_page(scene):
    request = types_pb2.ListRequest(prefix="s3://bucket/", recursive=False, page_size=10_000)
    pages = [page async for page in scene.stub.List(request)]
    assert [page.next_page_token for page in pages] == ["1", "2", ""]
    assert pages[0].objects[0].uri == URI
    assert list(pages[0].common_prefixes) == ["s3://bucket/sub/"]
    assert scene.cache.calls[0] == ("list", "s3://bucket/", False, "", 1000)
    later = [page async for page in scene.stub.List(types_pb2.ListRequest(page_token="2"))]
    assert len(later) == 1


async def test_prefetch_is_followed_to_its_end(scene):
    request = types_pb2.PrefetchRequest(uris=["s3://bucket/a/", URI])
    reports = [report async for report in scene.stub.Prefetch(request)]
    assert [report.done for report in reports] == [False, False, True]
    last = reports[-1]
    assert last.job_id == "job of 2"
    assert (last.planned_bytes, last.resident_objects, last.failed_bytes) == (30, 3, 5)
    assert isinstance(error_from_pb(last.failures[0]), NotFound)


async def test_warm_status(scene):
    request = types_pb2.WarmStatusRequest(job_id="job", wait_ms=4_000_000_000)
    assert (await scene.stub.WarmStatus(request)).listing
    assert scene.warmer.waits == [60.0]
    code, error = await refusal(scene.stub.WarmStatus(types_pb2.WarmStatusRequest(job_id="x")))
    assert code is grpc.StatusCode.NOT_FOUND
    assert isinstance(error, NotFound)


async def test_operators_calls(scene):
    assert list((await scene.stub.Pin(pb.PinRequest(uri=URI))).pins) == [URI]
    assert list((await scene.stub.Unpin(pb.PinRequest(uri=URI))).pins) == []
    evicted = await scene.stub.Evict(pb.EvictRequest(uri=URI, include_pinned=True))
    assert (evicted.shards, evicted.bytes) == (3, 1 << 40)
    assert (await scene.stub.Invalidate(pb.InvalidateRequest(uri=URI))).entries == 7
    assert (await scene.stub.Status(types_pb2.StatusRequest())).node_id == "n1"
    assert scene.cache.calls == [
        ("pin", URI),
        ("unpin", URI),
        ("evict", URI, True),
        ("invalidate", URI),
    ]


async def test_explain(scene):
    reply = await scene.stub.Explain(pb.ExplainRequest(uri=URI))
    assert (reply.origin, reply.metadata_age_s, reply.lease_s) == ("s3://bucket/", 1.5, 2.5)
    assert reply.last_miss == "evicted"
    (shard,) = reply.shards
    assert (shard.index, shard.state, shard.size_bytes) == (1, "partial", SHARD_BYTES)
    assert (shard.present_bytes, shard.path, shard.pinned, shard.verified) == (
        10,
        "/nvme",
        True,
        False,
    )
    assert len(shard.digest) == 32


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*BY_CODE.values(), CorruptData], ids=lambda kind: kind.__name__)
async def test_every_error_crosses_as_its_type(scene, kind):
    scene.cache.failure = kind("what went wrong: \u00e4\n", uri=URI)
    for call in (
        scene.stub.Stat(types_pb2.StatRequest(uri=URI)),
        scene.stub.Read(pb.ReadRequest(uri=URI)).read(),
    ):
        code, error = await refusal(call)
        name = code_name(scene.cache.failure)
        assert code is grpc.StatusCode[GRPC_STATUS[name]]
        assert type(error) is BY_CODE[name]
        assert (str(error), error.uri) == ("what went wrong: \u00e4\n", URI)


async def test_overloaded_says_when_to_come_back(scene):
    scene.cache.failure = Overloaded("full", retry_after_s=2.5)
    _, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=URI)))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 2.5


async def test_a_defect_says_nothing_of_our_insides(scene, caplog):
    scene.cache.failure = RuntimeError("password=secret")
    with caplog.at_level(logging.ERROR):
        code, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=URI)))
    assert code is grpc.StatusCode.INTERNAL
    assert type(error) is InternalError
    assert "secret" not in str(error)
    (record,) = [r for r in caplog.records if r.name == "cache_server.answer"]
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


async def test_the_longest_names_fit_into_an_error(scene):
    uri = "file:///" + "\u00e9" * 2044
    scene.cache.failure = NotFound(f"{uri} is not there", uri=uri)
    _, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=uri)))
    assert isinstance(error, NotFound)
    assert error.uri == uri


async def test_requests_are_counted_with_their_codes(scene):
    await scene.stub.Stat(types_pb2.StatRequest(uri=URI))
    await refusal(scene.stub.Stat(types_pb2.StatRequest(uri="s3://bucket/absent")))
    found = scene.metrics.snapshot()
    assert found['hotshard_requests_total{code="ok",method="Stat",path="grpc"}'] == 1
    assert found['hotshard_requests_total{code="not_found",method="Stat",path="grpc"}'] == 1
    assert found['hotshard_requests_total{code="internal",method="Stat",path="grpc"}'] == 0


# -- Read ----------------------------------------------------------------------------------------

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
    call = scene.stub.Read(pb.ReadRequest(uri=URI), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await scene.cache.cancelled.wait()


async def test_a_reader_that_takes_nothing_is_given_up(tmp_path):
    async with serving(str(tmp_path), stall_s=0.2) as scene:
        scene.cache.content[URI] = bytes(200 << 20)
        call = scene.stub.Read(pb.ReadRequest(uri=URI))
        await call.read()
        key = 'hotshard_requests_total{code="overloaded",method="Read",path="grpc"}'
        async with asyncio.timeout(20):
            while not scene.metrics.snapshot()[key]:
                await asyncio.sleep(0.02)
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

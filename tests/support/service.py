"""The gRPC service over real sockets, with a cache of temp files behind it."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

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
from hotshard.core.errors import HotshardError, NotFound, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import error_from_pb

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


async def refusal(call: Any) -> tuple[grpc.StatusCode, HotshardError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(iter(caught.value.trailing_metadata() or ()))  # old ones are no mapping
    return caught.value.code(), error_from_pb(types_pb2.Error.FromString(trailers[ERROR_KEY]))

"""The gRPC service: decode, call the cache, encode. It decides nothing.

`Read` is the compatible path for callers that cannot receive open files: bytes are read from the cached
files in a thread, one message at a time, so that a stream holds about one message of memory however far
its reader lags behind. Handlers are coroutines that write, not generators: a cancelled one ends at once
in its own task, with its request's context.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from cache_server.answer import Answer
from cache_server.cluster.answers import ClusterAnswers
from cache_server.opened import Explanation, FileExtent, Opened
from cache_server.origins.origin import ListPage
from cache_server.replies import (
    Statuses,
    explanation_to_pb,
    page_to_pb,
    progress_to_pb,
    stat_result_to_pb,
)
from cache_server.requests import Requests
from cache_server.warm import WarmState
from hotshard.core.errors import (
    CorruptData,
    HotshardError,
    InternalError,
    InvalidRequest,
    Overloaded,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import CLUSTER_KEY, FORWARDED_KEY, info_to_pb

MESSAGE_BYTES = 1 << 20
"""Of payload in one message of Read."""
AHEAD_BYTES = 16 << 20
"""How much of an object a Read has opened at one time."""
READS_MAX = 64
"""Reads under way at one time: each may hold a few messages in memory."""
STALL_S = 60.0
"""A reader that takes no message for so long is given up."""
URIS_MAX = 1000
PAGE_OBJECTS_MAX = 1000
WARM_WAIT_S_MAX = 60.0
PROGRESS_INTERVAL_S = 0.1
"""Between two reports of a prefetch."""
OFFSET_MAX = (1 << 63) - 1

Context = Any
"""grpc.aio.ServicerContext; the generated stubs mix it with the synchronous one."""


class CacheCalls(Protocol):
    """What the service calls of cache_server.cache.Cache."""

    async def stat(self, uri: str, *, forwarded: bool = False) -> ObjectInfo:
        """Describe an object."""

    async def stat_many(self, uris: Sequence[str]) -> list[ObjectInfo | HotshardError]:
        """Describe objects."""

    async def list_page(
        self,
        prefix: str,
        *,
        recursive: bool,
        token: str,
        page_size: int,
        forwarded: bool = False,
    ) -> ListPage:
        """One page of a listing."""

    async def open(
        self, uri: str, version: str, offset: int, length: int, *, forwarded: bool = False
    ) -> Opened:
        """Open a range of an object."""

    async def pin(self, uri: str) -> list[str]:
        """Pin; return all pins."""

    async def unpin(self, uri: str) -> list[str]:
        """Unpin; return all pins."""

    async def evict(self, uri: str, *, include_pinned: bool = False) -> tuple[int, int]:
        """Drop; return shards and bytes."""

    async def invalidate(self, uri: str) -> int:
        """Forget descriptions; return how many."""

    async def explain(self, uri: str) -> Explanation:
        """Say what is known of an object."""


class WarmCalls(Protocol):
    """What the service calls of cache_server.warm.Warmer."""

    def start(self, uris: Sequence[str]) -> str:
        """Begin a warm-up; return its id."""

    async def progress(self, job_id: str, wait_s: float) -> WarmState:
        """Where it stands, at its next change or after `wait_s`."""


class CacheService(cache_pb2_grpc.CacheServicer):
    """hotshard.v1.Cache."""

    def __init__(
        self,
        cache: CacheCalls,
        warmer: WarmCalls,
        statuses: Statuses,
        requests: Requests,
        *,
        members: ClusterAnswers,
        stall_s: float = STALL_S,
    ) -> None:
        self._cache = cache
        self._warmer = warmer
        self._statuses = statuses
        self._requests = requests
        self._metrics = requests.metrics
        self._members = members
        self._stall_s = stall_s
        self._reads = 0

    async def Stat(self, request: types_pb2.StatRequest, context: Context) -> types_pb2.ObjectInfo:
        """Describe an object."""
        async with self._answer("Stat", context, request.uri):
            forwarded = self._forwarded(context)
            info = await self._cache.stat(request.uri, forwarded=forwarded)
            if not forwarded:
                self._metrics.reads.described(info.uri)
            return info_to_pb(info)

    async def StatMany(
        self, request: types_pb2.StatManyRequest, context: Context
    ) -> types_pb2.StatManyReply:
        """Describe objects, each answer an object or its error."""
        async with self._answer("StatMany", context):
            answers = await self._cache.stat_many(_uris(request.uris))
            for uri in request.uris:
                self._metrics.reads.described(uri)
            return types_pb2.StatManyReply(
                results=[stat_result_to_pb(answer) for answer in answers]
            )

    async def List(  # type: ignore[override] # a coroutine that writes, see above
        self, request: types_pb2.ListRequest, context: Context
    ) -> None:
        """All pages from the given one on."""
        async with self._answer("List", context):
            forwarded = self._forwarded(context)
            token, last = request.page_token, False
            while not last:
                page = await self._cache.list_page(
                    request.prefix,
                    recursive=request.recursive,
                    token=token,
                    page_size=min(request.page_size or PAGE_OBJECTS_MAX, PAGE_OBJECTS_MAX),
                    forwarded=forwarded,
                )
                await self._write(context, page_to_pb(page))
                if not forwarded:
                    entries = len(page.objects) + len(page.common_prefixes)
                    self._metrics.reads.listed(request.prefix, entries, begins=not token)
                token, last = page.next_token, not page.next_token

    async def Read(  # type: ignore[override] # a coroutine that writes, see above
        self, request: pb.ReadRequest, context: Context
    ) -> None:
        """The bytes of a range."""
        async with self._answer("Read", context, request.uri):
            _check_range(request)
            if self._reads >= READS_MAX:
                raise Overloaded(f"{READS_MAX} reads are under way", uri=request.uri)
            self._reads += 1
            try:
                await self._read(request, context)
            finally:
                self._reads -= 1

    async def Prefetch(  # type: ignore[override] # a coroutine that writes, see above
        self, request: types_pb2.PrefetchRequest, context: Context
    ) -> None:
        """Start a warm-up and follow it."""
        async with self._answer("Prefetch", context):
            job_id = self._warmer.start(_uris(request.uris))
            state = await self._warmer.progress(job_id, 0.0)
            await self._write(context, progress_to_pb(state))
            while not state.done:
                await asyncio.sleep(PROGRESS_INTERVAL_S)  # not a message for each object
                state = await self._warmer.progress(job_id, WARM_WAIT_S_MAX)
                await self._write(context, progress_to_pb(state))

    async def WarmStatus(
        self, request: types_pb2.WarmStatusRequest, context: Context
    ) -> types_pb2.WarmProgress:
        """Where a warm-up stands."""
        async with self._answer("WarmStatus", context):
            wait_s = min(request.wait_ms / 1000, WARM_WAIT_S_MAX)
            return progress_to_pb(await self._warmer.progress(request.job_id, wait_s))

    async def Pin(self, request: pb.PinRequest, context: Context) -> pb.PinReply:
        """Keep from eviction."""
        async with self._answer("Pin", context):
            return pb.PinReply(pins=await self._cache.pin(request.uri))

    async def Unpin(self, request: pb.PinRequest, context: Context) -> pb.PinReply:
        """Lift a pin."""
        async with self._answer("Unpin", context):
            return pb.PinReply(pins=await self._cache.unpin(request.uri))

    async def Evict(self, request: pb.EvictRequest, context: Context) -> pb.EvictReply:
        """Drop what is cached."""
        async with self._answer("Evict", context):
            shards, size = await self._cache.evict(
                request.uri, include_pinned=request.include_pinned
            )
            return pb.EvictReply(shards=shards, bytes=size)

    async def Invalidate(
        self, request: pb.InvalidateRequest, context: Context
    ) -> pb.InvalidateReply:
        """Forget descriptions."""
        async with self._answer("Invalidate", context):
            return pb.InvalidateReply(entries=await self._cache.invalidate(request.uri))

    async def Status(
        self, request: types_pb2.StatusRequest, context: Context
    ) -> types_pb2.StatusReply:
        """How the server is."""
        async with self._answer("Status", context):
            return self._statuses.status(brief=request.brief)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainReply:
        """What is known of an object, and where it is."""
        async with self._answer("Explain", context, request.uri):
            return self._members.explain(explanation_to_pb(await self._cache.explain(request.uri)))

    async def Members(self, request: pb.MembersRequest, context: Context) -> pb.MembersReply:
        """Who is in the cluster."""
        async with self._answer("Members", context):
            return self._members.members(with_table=request.with_table)

    async def WatchMembers(  # type: ignore[override] # a coroutine that writes, see above
        self, request: pb.MembersRequest, context: Context
    ) -> None:
        """The same, now and at each change."""
        async with self._answer("WatchMembers", context):
            async for reply in self._members.changes(with_table=request.with_table):
                await self._write(context, reply)

    async def Locate(self, request: pb.LocateRequest, context: Context) -> pb.LocateReply:
        """Who owns the shards of a range."""
        async with self._answer("Locate", context, request.uri):
            _check_range(request)
            info = await self._cache.stat(request.uri)
            if request.version not in ("", info.version):
                raise StaleObject(f"{info.uri} is of version {info.version} now", uri=info.uri)
            return self._members.locate(info, request.offset, request.length)

    async def Meet(self, request: pb.MeetRequest, context: Context) -> pb.MeetReply:
        """Somebody presents himself."""
        async with self._answer("Meet", context):
            return self._members.meet(request)

    async def Offer(self, request: pb.OfferRequest, context: Context) -> pb.OfferReply:
        """A member that leaves offers what it has."""
        async with self._answer("Offer", context):
            if not self._forwarded(context):
                raise InvalidRequest("only members of the cluster offer shards")
            return await self._members.offered(request)

    def _forwarded(self, context: Context) -> bool:
        """Whether another member of our cluster asks.

        Raises:
            InvalidRequest: a member of another cluster does.
        """
        metadata = dict(context.invocation_metadata() or ())
        if FORWARDED_KEY not in metadata:
            return False
        name = self._members.cluster
        if metadata.get(CLUSTER_KEY) != name:
            raise InvalidRequest(f"this is a member of cluster {name!r}, not of yours")
        return True

    def _answer(self, method: str, context: Context, uri: str = "") -> Answer:
        return Answer(self._requests, method, context, uri)

    async def _read(self, request: pb.ReadRequest, context: Context) -> None:
        loop = asyncio.get_running_loop()
        forwarded = self._forwarded(context)
        opened = await self._cache.open(
            request.uri,
            request.version,
            request.offset,
            min(request.length or AHEAD_BYTES, AHEAD_BYTES),
            forwarded=forwarded,
        )
        info = opened.info
        stop = min(info.size, request.offset + request.length) if request.length else info.size
        position = request.offset
        reply = pb.ReadReply(object=info_to_pb(info))
        while position < stop:
            extent = _extent_at(opened.extents, position)
            if extent is None:
                ahead = min(stop - position, AHEAD_BYTES)
                opened = await self._cache.open(
                    info.uri, info.version, position, ahead, forwarded=forwarded
                )
                extent = _extent_at(opened.extents, position)
            if extent is None:
                raise InternalError(f"nothing was opened at offset {position}", uri=info.uri)
            skip = position - extent.object_offset
            length = min(extent.length - skip, stop - position, MESSAGE_BYTES)
            data = await loop.run_in_executor(
                None, _pread, extent.file, length, extent.file_offset + skip
            )
            if not data:
                raise CorruptData(f"the cached file ends before offset {position}", uri=info.uri)
            position += len(data)
            reply.data = data
            await self._write(context, reply)
            self._metrics.sent("grpc", len(data))
            if not forwarded:
                begins = position == request.offset + len(data) and not (
                    request.version and request.offset
                )
                self._metrics.reads.opened(info.uri, len(data), begins=begins)
            reply = pb.ReadReply()
        if reply.HasField("object"):
            await self._write(context, reply)

    async def _write(self, context: Context, reply: object) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await context.write(reply)
        except TimeoutError as error:
            raise Overloaded(f"no message was taken for {self._stall_s:g} s") from error


def _uris(uris: Sequence[str]) -> Sequence[str]:
    if len(uris) > URIS_MAX:
        raise InvalidRequest(f"{len(uris)} uris in one request; should be at most {URIS_MAX}")
    return uris


def _check_range(request: pb.ReadRequest | pb.LocateRequest) -> None:
    if request.offset + request.length > OFFSET_MAX:
        raise InvalidRequest(
            f"offset {request.offset} and length {request.length} are beyond any object",
            uri=request.uri,
        )


def _extent_at(extents: Iterable[FileExtent], position: int) -> FileExtent | None:
    for extent in extents:
        if extent.object_offset <= position < extent.object_offset + extent.length:
            return extent
    return None


def _pread(file: OpenFile, length: int, offset: int) -> bytes:
    # Takes the OpenFile, not its number: a cancelled caller must not close it under this thread.
    return os.pread(file.fd, length, offset)

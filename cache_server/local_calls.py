"""What the local socket can be asked: one method per call of local.proto.

Each takes the request's message and adds the files that go with its reply to `files`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cache_server.cache import Cache
from cache_server.flight import Spawn
from cache_server.metrics import Metrics
from cache_server.opened import Ask, Opened
from cache_server.replies import Statuses, page_to_pb, progress_to_pb, stat_result_to_pb
from cache_server.requests import Requests
from cache_server.warm import Warmer
from hotshard.core.errors import InvalidRequest
from hotshard.openfile import OpenFile
from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import PROTOCOL, error_to_pb, info_to_pb

MESSAGE_BYTES_MAX = 192 << 10  # a packet must fit the socket buffer (net.core.wmem_max: 208 KiB)
OPENS_MAX = 128  # per OpenMany
FILES_MAX = 253  # the kernel passes no more descriptors with one packet
STATS_MAX = 100
URIS_MAX = 100
LIST_PAGE_MAX = 1000  # names in one reply, as many as one LIST of S3 gives; fewer if they are long


@dataclass(frozen=True, slots=True)
class LocalCalls:
    """What the answers come from."""

    cache: Cache
    warmer: Warmer
    statuses: Statuses
    requests: Requests
    spawn: Spawn
    node_id: str
    version: str

    @property
    def metrics(self) -> Metrics:
        """Who counts."""
        return self.requests.metrics

    def touch(self, request: pb.LocalRequest) -> None:
        """Recency of what was read under a lease; has no reply."""
        uris = request.touch.uris[:URIS_MAX]
        self.cache.touch(uris)
        self.metrics.reads.reused(uris)

    def open_now(self, request: pb.LocalRequest, files: list[OpenFile]) -> pb.LocalReply | None:
        """The warm path: an open answered from memory, or None: `open`."""
        ask = request.open
        opened = self.cache.open_now(ask.uri, ask.version, ask.offset, ask.length)
        return None if opened is None else self._opened(ask, opened, files)

    async def hello(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """Who is who, and which protocol both know."""
        return pb.LocalReply(
            hello=pb.HelloReply(
                protocol=min(PROTOCOL, request.hello.protocol or PROTOCOL),
                server=f"hotshard/{self.version}",
                node_id=self.node_id,
                max_message_bytes=MESSAGE_BYTES_MAX,
            )
        )

    async def open(self, request: pb.LocalRequest, files: list[OpenFile]) -> pb.LocalReply:
        """Open a range of an object."""
        ask = request.open
        opened = await self.cache.open(ask.uri, ask.version, ask.offset, ask.length)
        return self._opened(ask, opened, files)

    async def open_many(self, request: pb.LocalRequest, files: list[OpenFile]) -> pb.LocalReply:
        """Open many small objects. A range in several files gets all of them while the packet has room."""
        opens = request.open_many.opens
        _at_most(len(opens), OPENS_MAX, "opens")
        spare = FILES_MAX - len(opens)
        asks = [Ask(o.uri, o.version, o.offset, o.length) for o in opens]
        reply = pb.LocalReply()
        reply.open_many.SetInParent()
        add = reply.open_many.results.add
        for ask, answer in zip(opens, await self.cache.open_many(asks), strict=True):
            if isinstance(answer, Opened):
                opened = answer.beginning(1 + spare)
                spare -= max(0, len(opened.extents) - 1)
                self._told(ask, opened)
                _fill_open(add().open, opened, files)
            else:
                add().error.CopyFrom(error_to_pb(answer))
        return reply

    async def stat(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """Describe an object."""
        info = await self.cache.stat(request.stat.uri)
        self.metrics.reads.described(info.uri)
        return pb.LocalReply(stat=info_to_pb(info))

    async def stat_many(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """Describe objects."""
        uris = request.stat_many.uris
        _at_most(len(uris), STATS_MAX, "uris")
        answers = await self.cache.stat_many(uris)
        for uri in uris:
            self.metrics.reads.described(uri)
        results = [stat_result_to_pb(answer) for answer in answers]
        return pb.LocalReply(stat_many=types_pb2.StatManyReply(results=results))

    async def list_page(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """One page of a listing."""
        ask = request.list
        size = min(ask.page_size or LIST_PAGE_MAX, LIST_PAGE_MAX)
        while True:
            page = await self.cache.list_page(
                ask.prefix, recursive=ask.recursive, token=ask.page_token, page_size=size
            )
            reply = pb.LocalReply(list=page_to_pb(page))
            if reply.ByteSize() <= MESSAGE_BYTES_MAX or size == 1:
                break
            size = max(1, size // 2)  # long names; the origin's page is in memory by now
        entries = len(page.objects) + len(page.common_prefixes)
        self.metrics.reads.listed(ask.prefix, entries, begins=not ask.page_token)
        return reply

    async def prefetch(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """Start a warm-up."""
        job_id = self.warmer.start(request.prefetch.uris)
        return pb.LocalReply(prefetch=pb.PrefetchReply(job_id=job_id))

    async def warm_status(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """Where a warm-up stands."""
        ask = request.warm_status
        state = await self.warmer.progress(ask.job_id, ask.wait_ms / 1000)
        return pb.LocalReply(warm_status=progress_to_pb(state))

    def _opened(self, ask: pb.OpenRequest, opened: Opened, files: list[OpenFile]) -> pb.LocalReply:
        self._told(ask, opened)
        reply = pb.LocalReply()
        _fill_open(reply.open, opened, files)
        return reply

    def _told(self, ask: pb.OpenRequest, opened: Opened) -> None:
        """Count what a reader is given."""
        if ask.length:
            begins = not ask.version or not ask.offset
            size = opened.covered(ask.offset, ask.length)
            self.metrics.reads.opened(opened.info.uri, size, begins=begins)

    async def status(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        """How the server is."""
        return pb.LocalReply(status=self.statuses.status(brief=request.status.brief))


Call = Callable[[LocalCalls, pb.LocalRequest, list[OpenFile]], Awaitable[pb.LocalReply]]

CALLS: dict[str, Call] = {
    "hello": LocalCalls.hello,
    "open": LocalCalls.open,
    "open_many": LocalCalls.open_many,
    "stat": LocalCalls.stat,
    "stat_many": LocalCalls.stat_many,
    "list": LocalCalls.list_page,
    "prefetch": LocalCalls.prefetch,
    "warm_status": LocalCalls.warm_status,
    "status": LocalCalls.status,
}
"""By the name of the field in LocalRequest."""


def _fill_open(reply: pb.OpenReply, opened: Opened, files: list[OpenFile]) -> None:
    """The reply to an open; its files are added to `files`, in the order that fd_index counts.

    Field by field: to make the messages and have them copied would cost three times as much.
    """
    info, described = opened.info, reply.object
    described.uri = info.uri
    described.version = info.version
    described.size_bytes = info.size
    described.mtime_ns = info.mtime_ns
    for extent in opened.extents:
        told = reply.extents.add()
        told.object_offset = extent.object_offset
        told.length = extent.length
        told.fd_index = len(files)
        told.file_offset = extent.file_offset
        told.sealed = extent.sealed
        files.append(extent.file)
    reply.lease_ms = int(opened.lease_s * 1000)


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidRequest(f"{count} {what} in one message: at most {limit}")

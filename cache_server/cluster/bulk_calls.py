"""What the bulk port answers: checks who asks, opens the range, and says where the bytes lie. No sockets.

A member that knows the object (FORWARDED, with its size) is answered from this node's cache or from the
origin, never from a third member. ONLY_CACHED is answered without fetching anything. Anybody else is
answered as a local reader would be.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from cache_server.cache import Cache
from cache_server.opened import Opened
from cache_server.requests import Requests
from cache_server.scope import as_id
from cache_server.store.verify import Sums
from hotshard.core import bulkwire as wire
from hotshard.core.blocks import shard_digest
from hotshard.core.checksum import Checksum
from hotshard.core.errors import HotshardError, InternalError, InvalidRequest
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


@dataclass(frozen=True, slots=True)
class Part:
    """`length` bytes of a file."""

    file: OpenFile
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a reply, and the payload that follows it."""

    reply: wire.Reply
    parts: tuple[Part, ...] = ()
    sum_payload: bool = False
    """A member receives it, and checks what it receives: also what is served from memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is, to those who ask."""

    cluster: str = ""
    secret: bytes = b""
    """Empty: no tickets are asked for."""
    shard_bytes: int
    owns: Callable[[bytes], bool] = field(default=lambda _: True)
    view: Callable[[], int] = field(default=lambda: 0)


class OnRead(Protocol):
    """Told what readers that are no members are given; `begins`: they do not go on with a read."""

    def __call__(self, uri: str, size: int, *, begins: bool) -> None:
        """A reader was given so many bytes of an object."""


def _unheard(uri: str, size: int, *, begins: bool) -> None:
    """Nobody is told."""


class BulkCalls:
    """Answers requests. Use from the event loop only."""

    def __init__(
        self,
        cache: Cache,
        identity: Identity,
        whole: Callable[[ObjectInfo], Awaitable[Checksum | None]],
        requests: Requests,
        on_read: OnRead = _unheard,
    ) -> None:
        """Make it.

        Args:
            cache: what answers.
            identity: who this node is.
            whole: the origin's checksum of an object.
            requests: who begins them.
            on_read: told what is read.
        """
        self._cache = cache
        self._requests = requests
        self._on_read = on_read
        self._identity = identity
        self._whole = whole
        self._cluster = wire.cluster_id(identity.cluster)

    def answer_now(self, request: wire.Request) -> Answer | None:
        """The answer, if all of it is in memory; None: ask `answer`.

        It takes microseconds, so there is no line in the log for it and no span.
        """
        if request.kind is not wire.Kind.READ or not request.length or self._refused(request):
            return None
        try:
            info = _info(request)
        except InvalidRequest:
            return None
        known, sums = self._cache.sums_now(info, request.offset, request.length)
        if not known:
            return None
        if request.flags:
            opened = self._cache.cached_now(info, request.offset, request.length)
        else:
            opened = self._cache.open_now(info.uri, info.version, request.offset, request.length)
        if opened is None:
            return None
        if not request.flags:
            self._heard(request, opened)
        parts = _parts(opened, request.offset, request.length)
        return self._with_head(request, opened.info, parts, sums)

    async def answer(self, request: wire.Request) -> Answer:
        """The answer; errors are answers too."""
        with self._requests.begin(
            "bulk",
            request.kind.name.lower(),
            as_id(request.request_id) if request.request_id else "",
            uri=request.uri,
            passed_on=bool(request.flags),
        ) as begun:
            answer = await self._answered(request)
            if answer.reply.status is not wire.Status.OK:
                begun.refused(answer.reply.status.name.lower())
            return answer

    async def _answered(self, request: wire.Request) -> Answer:
        refused = self._refused(request)
        if refused is not None:
            return Answer(refused)
        try:
            if request.kind is wire.Kind.WHOLE:
                return Answer(await self._whole_reply(request))
            return await self._read(request)
        except HotshardError as error:
            return Answer(wire.refusal(request.request_id, error))

    def _refused(self, request: wire.Request) -> wire.Reply | None:
        identity = self._identity
        if request.cluster != self._cluster:
            reason = (
                f"this is a member of cluster {identity.cluster!r}, and the request is not for it"
            )
            return self._refusal(request, wire.Status.WRONG_CLUSTER, reason)
        if identity.secret and not wire.is_genuine(request, identity.secret, time.time()):
            reason = "the ticket is not one of this cluster, or has expired"
            return self._refusal(request, wire.Status.FORGED, reason)
        return None

    async def _read(self, request: wire.Request) -> Answer:
        flags = request.flags
        if not flags & (wire.Flag.FORWARDED | wire.Flag.ONLY_CACHED):
            opened = await self._cache.open(
                request.uri, request.version, request.offset, request.length
            )
            self._heard(request, opened)
            return await self._answer(request, opened)
        info = _info(request)
        here = await self._cache.open_cached(info, request.offset, request.length)
        if here is None and flags & wire.Flag.ONLY_CACHED:
            reason = "not cached here"
            return Answer(self._refusal(request, wire.Status.NOT_CACHED, reason))
        if here is None:
            here = await self._cache.open_forwarded(info, request.offset, request.length)
        return await self._answer(request, here)

    def _heard(self, request: wire.Request, opened: Opened) -> None:
        begins = not request.version or not request.offset
        covered = opened.covered(request.offset, request.length)
        self._on_read(opened.info.uri, covered, begins=begins)

    async def _answer(self, request: wire.Request, opened: Opened) -> Answer:
        info = opened.info
        parts = _parts(opened, request.offset, request.length)
        length = sum(part.length for part in parts)
        if not length and request.length and request.offset < info.size:
            raise InternalError(f"nothing was opened at offset {request.offset}", uri=info.uri)
        sums = await self._cache.sums(info, request.offset, length) if length else None
        return self._with_head(request, info, parts, sums)

    def _with_head(
        self,
        request: wire.Request,
        info: ObjectInfo,
        parts: tuple[Part, ...],
        sums: Sums | None,
    ) -> Answer:
        length = sum(part.length for part in parts)
        reply = wire.Reply(
            request_id=request.request_id,
            flags=self._flags(info, request.offset),
            view=self._identity.view(),
            size=info.size,
            mtime_ns=info.mtime_ns,
            offset=request.offset,
            length=length,
            text=info.version,
            algorithm=sums.algorithm if sums else None,
            block_bytes=sums.block_bytes if sums else 0,
            sums=tuple(sums.values) if sums else (),
        )
        return Answer(reply, parts, sum_payload=bool(length) and request.flags != wire.Flag.NONE)

    async def _whole_reply(self, request: wire.Request) -> wire.Reply:
        found = await self._whole(_info(request))
        reply = wire.Reply(request_id=request.request_id, view=self._identity.view())
        if found is None:
            return reply
        return replace(reply, algorithm=found.algorithm, sums=(found.value,))

    def _flags(self, info: ObjectInfo, offset: int) -> wire.ReplyFlag:
        digest = shard_digest(info.uri, info.version, offset // self._identity.shard_bytes)
        return wire.ReplyFlag.NONE if self._identity.owns(digest) else wire.ReplyFlag.NOT_OWNER

    def _refusal(self, request: wire.Request, status: wire.Status, reason: str) -> wire.Reply:
        return wire.Reply(
            status=status,
            request_id=request.request_id,
            view=self._identity.view(),
            text=reason,
        )


def _info(request: wire.Request) -> ObjectInfo:
    if request.size == wire.UNKNOWN_SIZE or not request.version:
        raise InvalidRequest("a member has to say which object it means", uri=request.uri)
    if request.offset + request.length > request.size:
        raise InvalidRequest(
            f"bytes {request.offset} to {request.offset + request.length} of {request.size}",
            uri=request.uri,
        )
    return ObjectInfo(request.uri, request.version, request.size, request.mtime_ns)


def _parts(opened: Opened, offset: int, length: int) -> tuple[Part, ...]:
    """What of [offset, offset + length) the extents hold, from its beginning on and without a gap."""
    stop = min(offset + length, opened.info.size)
    parts = []
    for extent in opened.extents:
        skip = offset - extent.object_offset
        count = min(extent.length - skip, stop - offset)
        if skip >= 0 and count > 0:
            parts.append(Part(extent.file, extent.file_offset + skip, count))
            offset += count
    return tuple(parts)

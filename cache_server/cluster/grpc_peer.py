"""What members ask each other over gRPC: descriptions and listings, and blocks when the bulk port fails.

Requests are marked as forwarded in their metadata, so that the member asked answers by itself; they carry
the cluster's name and the version of the asker's view. Answers are bounded by deadlines like all else.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from cache_server.cluster.bulk_client import Landing, attempt_s
from cache_server.cluster.channels import Credentials, open_channel
from cache_server.core.patience import Patience
from cache_server.origins.origin import Fetched, ListPage, Want
from cache_server.origins.transfer import TargetFailed
from cache_server.scope import current_id, new_id
from cache_server.store.shard import ShardKey
from hotshard.core.checksum import running
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import (
    CLUSTER_KEY,
    FORWARDED_KEY,
    REQUEST_KEY,
    VIEW_KEY,
    error_from_pb,
    info_from_pb,
    info_to_pb,
)

ERROR_KEY = "hotshard-error-bin"
ASK_S = 3.0
RECEIVE_BYTES_MAX = 16 << 20
_TOKEN_PREFIX = "o0:"  # noqa: S105 - how a member's catalog writes a token of the origin
_OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 1_000),  # gRPC sets TCP_USER_TIMEOUT to it
    ("grpc.use_local_subchannel_pool", 1),
)
T = TypeVar("T")


class NoAnswer(Exception):
    """The member did not answer, or not in this protocol."""


class Gone(NoAnswer):
    """There is no connection to be had, or its host acknowledges nothing any more."""


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """What all channels of a node have in common."""

    cluster: str = ""
    credentials: Credentials | None = None


class GrpcPeer:
    """The channel to one member."""

    def __init__(self, address: str, options: GrpcOptions, patience: Patience) -> None:
        self._patience = patience
        self._channel = open_channel(address, options.credentials, _OPTIONS)
        self._stub: Any = cache_pb2_grpc.CacheStub(self._channel)
        self._cluster = options.cluster

    async def stat(self, uri: str, view: int) -> ObjectInfo:
        """Describe an object.

        Raises:
            NoAnswer: ask somebody else.
            HotshardError: what the member says.
        """
        request = types_pb2.StatRequest(uri=uri)
        async with self._in_time(ASK_S) as limit_s:
            call = self._stub.Stat(request, timeout=limit_s, metadata=self._metadata(view))
            return info_from_pb(await _answer(call))

    async def status(self, timeout_s: float) -> types_pb2.StatusReply:
        """How the member is; raises as `stat` does."""
        request = types_pb2.StatusRequest(brief=True)
        reply: types_pb2.StatusReply = await _answer(
            self._stub.Status(request, timeout=timeout_s, metadata=self._metadata(0))
        )
        return reply

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int, view: int
    ) -> ListPage:
        """One page of a listing, with tokens as the origin has them; raises as `stat` does."""
        request = types_pb2.ListRequest(
            prefix=prefix,
            recursive=recursive,
            page_token=_TOKEN_PREFIX + token if token else "",
            page_size=page_size,
        )
        async with self._in_time(2 * ASK_S) as limit_s:
            call = self._stub.List(request, timeout=limit_s, metadata=self._metadata(view))
            try:
                reply = await _answer(call.read())
            finally:
                call.cancel()
        if reply is grpc.aio.EOF:
            raise NoAnswer("the listing ended before it began")
        next_token = reply.next_page_token
        if next_token and not next_token.startswith(_TOKEN_PREFIX):
            raise NoAnswer("its pages are cut in other places")
        return ListPage(
            [info_from_pb(found) for found in reply.objects],
            list(reply.common_prefixes),
            next_token.removeprefix(_TOKEN_PREFIX),
        )

    async def offer(self, shards: Sequence[ShardKey], view: int, limit_s: float) -> tuple[int, int]:
        """Shards and bytes that the member took over of these; raises as `stat` does."""
        request = pb.OfferRequest()
        for key in shards:
            info = ObjectInfo(key.uri, key.version, key.object_size, key.mtime_ns)
            request.shards.add(object=info_to_pb(info), index=key.index)
        call = self._stub.Offer(request, timeout=limit_s, metadata=self._metadata(view))
        reply = await _answer(call)
        return reply.taken_shards, reply.taken_bytes

    async def read(self, want: Want, landing: Landing, view: int) -> Fetched:
        """Receive a block; no checksum comes with it, so this is the second choice.

        Raises:
            NoAnswer, HotshardError: as `stat`.
            TargetFailed: the target could not be written.
        """
        info = want.info
        request = pb.ReadRequest(
            uri=info.uri, version=info.version, offset=want.offset, length=want.length
        )
        data = bytearray()
        async with self._in_time(attempt_s(want.length) + ASK_S) as limit_s:
            call = self._stub.Read(request, timeout=limit_s, metadata=self._metadata(view))
            try:
                while (reply := await _answer(call.read())) is not grpc.aio.EOF:
                    data += reply.data
                    if len(data) > want.length:
                        break
            finally:
                call.cancel()
        if len(data) != want.length:
            raise NoAnswer(f"{len(data)} bytes came instead of {want.length}")
        return await asyncio.to_thread(_land, want, landing, data)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    @asynccontextmanager
    async def _in_time(self, usual_s: float) -> AsyncIterator[float]:
        """Around one request: gives its deadline, and learns from how long it took."""
        began = time.monotonic()
        yield usual_s * self._patience.factor
        self._patience.took((time.monotonic() - began) / usual_s)

    def _metadata(self, view: int) -> tuple[tuple[str, str], ...]:
        return (
            (FORWARDED_KEY, "1"),
            (CLUSTER_KEY, self._cluster),
            (VIEW_KEY, str(view)),
            (REQUEST_KEY, current_id() or new_id()),
        )


async def _answer(call: Awaitable[T]) -> T:
    task = asyncio.current_task()
    assert task is not None, "coroutines run in tasks"
    cancelled = task.cancelling()
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _error(error) from error
    except asyncio.CancelledError as error:
        # A channel that is closed cancels the calls on it; that is no wish to end who waits for them.
        if task.cancelling() > cancelled:
            raise
        raise NoAnswer("the connection was given up") from error


def _error(error: grpc.aio.AioRpcError) -> HotshardError | NoAnswer:
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return error_from_pb(types_pb2.Error.FromString(value))
    kind = Gone if error.code() is grpc.StatusCode.UNAVAILABLE else NoAnswer
    return kind(f"{error.code().name}: {error.details()}")


def _land(want: Want, landing: Landing, data: bytearray) -> Fetched:
    total = running(want.algorithm)
    total.update(data)
    if landing.claim():
        try:
            os.pwrite(landing.target.fd, data, landing.target.file_offset)
        except OSError as error:
            raise TargetFailed(error) from error
    return Fetched(total.value(), want.algorithm)

"""One question to an address, "this is me, who are you?", over gRPC.

A channel of its own for each: meetings are rare, and the address may belong to anybody.
"""

from typing import Any, Protocol

import grpc

from cache_server.cluster.channels import Credentials, open_channel
from hotshard.core.members import Member, Terms
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc
from hotshard.wire import member_from_pb, member_to_pb

MEET_S = 2.0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 10),
)
_SILENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_NOT_HTTP2 = ("Failed parsing HTTP/2", "Trying to connect an http1.x server")
"""gRPC gives the same code to whoever is away and to whoever speaks something else; grpcio 1.71 has a text
of its own for HTTP/1."""


class Silent(Exception):
    """Nobody answered in time."""


class Stranger(Exception):
    """Who answered is no member of a cluster like ours, and says so or shows it."""


class Meeter(Protocol):
    """Asks."""

    async def meet(self, address: str, me: Member, terms: Terms) -> tuple[Member, Terms]:
        """Who is at an address.

        Raises:
            Silent: nobody.
            Stranger: something else.
        """


class GrpcMeeter:
    """See Meeter."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials

    async def meet(self, address: str, me: Member, terms: Terms) -> tuple[Member, Terms]:
        """See Meeter."""
        request = pb.MeetRequest(terms=terms_to_pb(terms), me=member_to_pb(me))
        async with open_channel(address, self._credentials, _OPTIONS) as channel:
            stub: Any = cache_pb2_grpc.CacheStub(channel)
            try:
                reply = await stub.Meet(request, timeout=MEET_S)
            except grpc.aio.AioRpcError as error:
                raise _meaning(address, error) from error
        return member_from_pb(reply.me), terms_from_pb(reply.terms)


def _meaning(address: str, error: grpc.aio.AioRpcError) -> Exception:
    """A server that is away, or too busy to answer; anything else is an answer, and no good one."""
    details = error.details() or ""
    said = f"{address}: {error.code().name}: {details[:300]}"
    if error.code() not in _SILENT:
        return Stranger(said)
    if any(text in details for text in _NOT_HTTP2):
        return Stranger(f"{address} answers, but is no gRPC server: {details[:300]}")
    return Silent(said)


def terms_to_pb(terms: Terms) -> pb.Terms:
    """Terms as a message."""
    return pb.Terms(
        cluster=terms.cluster,
        slots=terms.slots,
        replicas=terms.replicas,
        shard_bytes=terms.shard_bytes,
    )


def terms_from_pb(message: pb.Terms) -> Terms:
    """The terms of a message."""
    return Terms(message.cluster, message.slots, message.replicas, message.shard_bytes)

"""Calls and replies as packets of the local socket (local.proto); pure.

A reply may come with open files, which arrive before it is looked at: whoever received them has put each
into an OpenFile already, so an error here leaks none.
"""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from hotshard import calls
from hotshard.core.errors import HotshardError, InternalError
from hotshard.openfile import OpenFile
from hotshard.replies import page_from_pb, progress_from_pb, stats_from_pb, status_from_pb
from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import PROTOCOL, error_from_pb, info_from_pb

Files = Sequence[OpenFile]

FILES_PER_PACKET = 253  # SCM_MAX_FD of Linux
PACKET_BYTES = 256 << 10  # more than a socket buffer takes by default, so nothing is cut


def hello(number: int, client: str, request_base: int = 0) -> bytes:
    """The first packet of a conversation."""
    greeting = pb.HelloRequest(protocol=PROTOCOL, client=client, request_base=request_base)
    return pb.LocalRequest(id=number, hello=greeting).SerializeToString()


def encode(number: int, call: calls.Call | calls.Touch, timeout_ms: int) -> bytes:
    """A call as a packet."""
    request = pb.LocalRequest(id=number, timeout_ms=timeout_ms)
    _FILLERS[type(call)](request, call)
    return request.SerializeToString()


def decode(packet: bytes) -> pb.LocalReply:
    """A packet as a reply.

    Raises:
        InternalError: it is none.
    """
    try:
        return pb.LocalReply.FromString(packet)
    except DecodeError as error:
        raise InternalError("what answers on the local socket is no hotshard server") from error


def check_hello(reply: pb.LocalReply) -> None:
    """The first reply: raises a refusal, or InternalError when the server speaks another protocol."""
    if reply.HasField("error"):
        raise error_from_pb(reply.error)
    if reply.hello.protocol != PROTOCOL:
        raise InternalError(
            f"the server speaks protocol {reply.hello.protocol} of the local socket, this client"
            f" only {PROTOCOL}; update whichever is older"
        )


def check_notice(reply: pb.LocalReply) -> None:
    """A packet that answers no call: raises the server's reason to end the conversation, if it is one."""
    if reply.HasField("error"):
        raise error_from_pb(reply.error)


def result(reply: pb.LocalReply, call: calls.Call, files: Files) -> Any:
    """The value that answers `call`; a refusal is raised."""
    kind = reply.WhichOneof("result")
    if kind == "error":
        raise error_from_pb(reply.error)
    expected, decoder = _DECODERS[type(call)]
    if kind != expected:
        raise InternalError(f"the server answered a {type(call).__name__} call with {kind!r}")
    return decoder(getattr(reply, kind), files)


def _fill_list(request: pb.LocalRequest, call: calls.ListPage) -> None:
    request.list.prefix = call.prefix
    request.list.recursive = call.recursive
    request.list.page_token = call.token
    request.list.page_size = call.page_size


def _fill_open(request: pb.LocalRequest, call: calls.Open) -> None:
    request.open.uri = call.uri
    request.open.version = call.version
    request.open.offset = call.offset
    request.open.length = call.length


def _fill_open_many(request: pb.LocalRequest, call: calls.OpenMany) -> None:
    request.open_many.SetInParent()
    add = request.open_many.opens.add
    for each in call.opens:
        add(uri=each.uri, version=each.version, offset=each.offset, length=each.length)


def _fill_warm_status(request: pb.LocalRequest, call: calls.WarmStatus) -> None:
    request.warm_status.job_id = call.job_id
    request.warm_status.wait_ms = int(call.wait_s * 1000)


_FILLERS: dict[type, Callable[[pb.LocalRequest, Any], object]] = {
    calls.Stat: lambda request, call: request.stat.MergeFrom(types_pb2.StatRequest(uri=call.uri)),
    calls.StatMany: lambda request, call: request.stat_many.MergeFrom(
        types_pb2.StatManyRequest(uris=call.uris)
    ),
    calls.ListPage: _fill_list,
    calls.Open: _fill_open,
    calls.OpenMany: _fill_open_many,
    calls.Prefetch: lambda request, call: request.prefetch.MergeFrom(
        types_pb2.PrefetchRequest(uris=call.uris)
    ),
    calls.WarmStatus: _fill_warm_status,
    calls.Touch: lambda request, call: request.touch.uris.extend(call.uris),
    calls.Status: lambda request, _: request.status.SetInParent(),
}


def _opened(reply: pb.OpenReply, files: Files) -> calls.Opened:
    pieces = []
    for extent in reply.extents:
        start = extent.object_offset
        if extent.fd_index >= len(files):
            raise InternalError(f"the reply for {reply.object.uri} lacks an open file")
        pieces.append(
            calls.Piece(
                start,
                start + extent.length,
                files[extent.fd_index],
                extent.file_offset - start,
                sealed=extent.sealed,
            )
        )
    return calls.Opened(info_from_pb(reply.object), pieces, reply.lease_ms / 1000)


def _opened_many(reply: pb.OpenManyReply, files: Files) -> list[calls.Opened | HotshardError]:
    return [
        error_from_pb(each.error) if each.HasField("error") else _opened(each.open, files)
        for each in reply.results
    ]


_DECODERS: dict[type, tuple[str, Callable[[Any, Files], Any]]] = {
    calls.Stat: ("stat", lambda reply, _: info_from_pb(reply)),
    calls.StatMany: ("stat_many", lambda reply, _: stats_from_pb(reply)),
    calls.ListPage: ("list", lambda reply, _: page_from_pb(reply)),
    calls.Open: ("open", _opened),
    calls.OpenMany: ("open_many", _opened_many),
    calls.Prefetch: ("prefetch", lambda reply, _: reply.job_id),
    calls.WarmStatus: ("warm_status", lambda reply, _: progress_from_pb(reply)),
    calls.Status: ("status", lambda reply, _: status_from_pb(reply)),
}

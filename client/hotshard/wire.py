"""Dataclasses and errors of the core <-> protobuf messages; nothing else converts them."""

from hotshard.core.errors import BY_CODE, HotshardError, InternalError, Overloaded, code_name
from hotshard.core.members import Member, State
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import types_pb2 as pb

PROTOCOL = 1

# Metadata of gRPC requests that one member of a cluster sends to another.
FORWARDED_KEY = "hotshard-forwarded"
CLUSTER_KEY = "hotshard-cluster"
VIEW_KEY = "hotshard-view"
# Of any request: its id, 16 hexadecimal digits, which stands in the log lines of all nodes that see it.
REQUEST_KEY = "hotshard-request"
_ID_MASK = (1 << 64) - 1
_ID_STEP = 0x9E3779B97F4A7C15  # odd: a bijection, which spreads neighbours over all 64 bits


def request_number(base: int, number: int) -> int:
    """The id of a request on the local socket: its number, spread, from where its conversation begins."""
    return ((base + number) * _ID_STEP) & _ID_MASK or 1


def info_to_pb(info: ObjectInfo) -> pb.ObjectInfo:
    """An object's description as a message."""
    return pb.ObjectInfo(
        uri=info.uri, version=info.version, size_bytes=info.size, mtime_ns=info.mtime_ns
    )


def info_from_pb(message: pb.ObjectInfo) -> ObjectInfo:
    """An object's description from a message."""
    return ObjectInfo(message.uri, message.version, message.size_bytes, message.mtime_ns)


def error_to_pb(error: BaseException) -> pb.Error:
    """A refusal as a message. What is not a HotshardError tells the peer nothing but its type."""
    name = code_name(error)
    ours = isinstance(error, HotshardError)
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return pb.Error(
        code=pb.ErrorCode.Value(f"ERROR_CODE_{name}"),
        message=str(error)
        if ours
        else f"internal error ({type(error).__name__}); see the server's log",
        uri=error.uri if isinstance(error, HotshardError) else "",
        retry_after_ms=int(retry_after_s * 1000),
    )


def error_from_pb(message: pb.Error) -> HotshardError:
    """The typed error a message stands for; an unknown code from a newer peer is InternalError."""
    try:
        name = pb.ErrorCode.Name(message.code).removeprefix("ERROR_CODE_")
    except ValueError:
        name = "INTERNAL"
    kind = BY_CODE.get(name, InternalError)
    error = kind(message.message, uri=message.uri)
    if isinstance(error, Overloaded):
        error.retry_after_s = message.retry_after_ms / 1000
    error.request_id = message.request
    return error


def member_to_pb(member: Member) -> pb.Member:
    """A member as a message."""
    return pb.Member(
        id=member.id,
        grpc=member.grpc,
        bulk=member.bulk,
        zone=member.zone,
        weight=member.weight,
        state=member.state,
        instance=member.instance,
    )


def member_from_pb(message: pb.Member) -> Member:
    """The member of a message. A state of a later version counts as draining: it gets nothing new."""
    known = message.state in set(State)
    return Member(
        message.id,
        message.grpc,
        message.bulk,
        message.zone,
        message.weight,
        State(message.state) if known else State.DRAINING,
        message.instance,
    )

"""The messages of the bulk port: requests and the heads of replies, to bytes and back.

A request is a fixed head, the uri and the version; a reply is a fixed head, block checksums and a text,
and then the payload as it lies in the files. docs/BULK.md has the tables; golden bytes in the tests hold
the format still. All numbers are big-endian. Pure: whoever sends and receives is elsewhere.

Nothing that is decoded is trusted: lengths are bounded before anything is read for them, and every fault
is a `Malformed` that says what was wrong.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import TypeVar

import xxhash

from hotshard.core.checksum import Algorithm
from hotshard.core.errors import BY_CODE, HotshardError, InternalError, Overloaded, code_name

E = TypeVar("E", bound=IntEnum)

VERSION = 1
LENGTH_MAX = 64 << 20
"""Of the range one request may ask for."""
URI_BYTES_MAX = 4200  # a path of 4 KiB with its scheme, or a key of 1 KiB with its bucket
VERSION_BYTES_MAX = 1024
TEXT_BYTES_MAX = 2048
SUMS_MAX = LENGTH_MAX // 4096  # blocks are at least a page
TICKET_BYTES = 16
UNKNOWN_SIZE = (1 << 64) - 1
OFFSET_MAX = (1 << 63) - 1

_REQUEST = struct.Struct("!4sBBHQQQQQQqIHH16s")
_REPLY = struct.Struct("!4sBBBBIQQQqQQIHH")
_REQUEST_MAGIC, _REPLY_MAGIC = b"HSBQ", b"HSBR"
REQUEST_HEAD_BYTES = _REQUEST.size
REPLY_HEAD_BYTES = _REPLY.size


class Kind(IntEnum):
    """What is asked for."""

    READ = 1
    """Bytes of a range of an object version."""
    WHOLE = 2
    """Only the origin's checksum of the whole object version, in the reply's checksums."""


class Flag(IntFlag):
    """How it is asked for."""

    NONE = 0
    FORWARDED = 1
    """By a cache server: answer from here or from the origin, do not ask other servers to fill it."""
    ONLY_CACHED = 2
    """Answer only if it is cached here already; never fetch."""


class Status(IntEnum):
    """How a reply went. 1 to 7 are hotshard.v1.ErrorCode; the others exist only here."""

    OK = 0
    NOT_FOUND = 1
    PERMISSION = 2
    STALE = 3
    ORIGIN_UNAVAILABLE = 4
    OVERLOADED = 5
    INVALID = 6
    INTERNAL = 7
    NOT_CACHED = 32
    """The answer to ONLY_CACHED when it is not."""
    WRONG_CLUSTER = 33
    FORGED = 34
    """The ticket is not one of ours, or has expired."""
    MALFORMED = 35
    PENDING = 64
    """No answer yet: it is being fetched, and the answer to this request will still come."""


class ReplyFlag(IntFlag):
    """What else the answering server says."""

    NONE = 0
    NOT_OWNER = 1
    """By its view it does not own what was asked for; it answered anyway."""


class Malformed(Exception):
    """Bytes that are no message of this protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request."""

    kind: Kind = Kind.READ
    flags: Flag = Flag.NONE
    cluster: int
    """`cluster_id` of the cluster's name."""
    view: int = 0
    """The version of the asker's membership view."""
    request_id: int = 0
    uri: str
    version: str = ""
    offset: int = 0
    length: int = 0
    size: int = UNKNOWN_SIZE
    """Of the whole object, if the asker knows it: spares the other side asking the origin."""
    mtime_ns: int = 0
    expires: int = 0
    """Until when the ticket is good, in seconds since 1970."""
    ticket: bytes = bytes(TICKET_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The head of one reply; `length` bytes of payload follow it."""

    status: Status = Status.OK
    flags: ReplyFlag = ReplyFlag.NONE
    request_id: int
    view: int = 0
    size: int = 0
    mtime_ns: int = 0
    offset: int = 0
    length: int = 0
    algorithm: Algorithm | None = None
    block_bytes: int = 0
    sums: tuple[int, ...] = ()
    """One for each block of the payload, when it begins and ends at block boundaries."""
    retry_after_ms: int = 0
    text: str = ""
    """The object's version; of a refusal, the reason."""


def cluster_id(name: str) -> int:
    """How a cluster's name travels."""
    return xxhash.xxh3_64_intdigest(name.encode())


def signed(request: Request, secret: bytes, expires: int) -> Request:
    """The request with a ticket under the cluster's secret."""
    request = replace(request, expires=expires)
    return replace(request, ticket=_ticket(request, secret))


def is_genuine(request: Request, secret: bytes, now: float) -> bool:
    """Whether the ticket was made with the secret, for this, and is still good."""
    return request.expires >= now and hmac.compare_digest(request.ticket, _ticket(request, secret))


def _ticket(request: Request, secret: bytes) -> bytes:
    """Binds what may be read and how it is trusted, not where in it: a client reads on with one ticket."""
    bound = struct.pack(
        "!BHQQqI",
        request.kind,
        request.flags,
        request.cluster,
        request.size,
        request.mtime_ns,
        request.expires,
    )
    names = f"{request.uri}\0{request.version}".encode()
    return hmac.digest(secret, bound + names, hashlib.sha256)[:TICKET_BYTES]


def encode_request(request: Request) -> bytes:
    """As bytes.

    Raises:
        Malformed: a name is too long to travel.
    """
    uri, version = request.uri.encode(), request.version.encode()
    _check_names(len(uri), len(version))
    head = _REQUEST.pack(
        _REQUEST_MAGIC,
        VERSION,
        request.kind,
        request.flags,
        request.cluster,
        request.view,
        request.request_id,
        request.offset,
        request.length,
        request.size,
        request.mtime_ns,
        request.expires,
        len(uri),
        len(version),
        request.ticket,
    )
    return head + uri + version


def request_rest(head: bytes) -> int:
    """How many bytes of a request follow its head.

    Raises:
        Malformed: it is no head of a request.
    """
    magic, version = head[:4], head[4]
    if magic != _REQUEST_MAGIC:
        raise Malformed(f"not a bulk request: it begins with {magic!r}")
    if version != VERSION:
        raise Malformed(f"bulk protocol version {version}; this server speaks {VERSION}")
    *_, uri_bytes, version_bytes, _ = _REQUEST.unpack(head)
    _check_names(uri_bytes, version_bytes)
    return int(uri_bytes + version_bytes)


def decode_request(head: bytes, rest: bytes) -> Request:
    """From bytes; `request_rest(head)` was called.

    Raises:
        Malformed: it makes no sense.
    """
    (_, _, kind, flags, cluster, view, request_id, offset, length, size, mtime_ns, expires) = (
        _REQUEST.unpack(head)[:12]
    )
    *_, uri_bytes, _, ticket = _REQUEST.unpack(head)
    known = _known(Kind, kind, "kind")
    if flags & ~(Flag.FORWARDED | Flag.ONLY_CACHED):
        raise Malformed(f"flags {flags:#x} are not known")
    if length > LENGTH_MAX or offset > OFFSET_MAX - length:
        raise Malformed(f"a range of {length} bytes at {offset}; at most {LENGTH_MAX} bytes")
    try:
        uri, version = rest[:uri_bytes].decode(), rest[uri_bytes:].decode()
    except UnicodeDecodeError as error:
        raise Malformed("a name that is not UTF-8") from error
    return Request(
        kind=known,
        flags=Flag(flags),
        cluster=cluster,
        view=view,
        request_id=request_id,
        uri=uri,
        version=version,
        offset=offset,
        length=length,
        size=size,
        mtime_ns=mtime_ns,
        expires=expires,
        ticket=ticket,
    )


def encode_reply(reply: Reply) -> bytes:
    """The head, the checksums and the text; a text that is too long is cut."""
    text = reply.text.encode()[:TEXT_BYTES_MAX]
    head = _REPLY.pack(
        _REPLY_MAGIC,
        VERSION,
        reply.status,
        reply.algorithm or 0,
        reply.flags,
        reply.retry_after_ms,
        reply.request_id,
        reply.view,
        reply.size,
        reply.mtime_ns,
        reply.offset,
        reply.length,
        reply.block_bytes,
        len(reply.sums),
        len(text),
    )
    return b"".join((head, struct.pack(f"!{len(reply.sums)}Q", *reply.sums), text))


def reply_rest(head: bytes) -> int:
    """How many bytes of checksums and text follow the head of a reply.

    Raises:
        Malformed: it is no head of a reply.
    """
    magic, version = head[:4], head[4]
    if magic != _REPLY_MAGIC:
        raise Malformed(f"not a bulk reply: it begins with {magic!r}")
    if version != VERSION:
        raise Malformed(f"bulk protocol version {version}; this side speaks {VERSION}")
    *_, sums, text = _REPLY.unpack(head)
    if sums > SUMS_MAX or text > TEXT_BYTES_MAX:
        raise Malformed(f"{sums} checksums and {text} bytes of text are too many")
    return int(sums * 8 + text)


def decode_reply(head: bytes, rest: bytes) -> Reply:
    """From bytes; `reply_rest(head)` was called.

    Raises:
        Malformed: it makes no sense.
    """
    (_, _, status, algorithm, flags, retry_ms, request_id, view, size, mtime_ns, offset, length) = (
        _REPLY.unpack(head)[:12]
    )
    *_, block_bytes, count, _ = _REPLY.unpack(head)
    known = _known(Status, status, "status")
    kept = _known(Algorithm, algorithm, "checksum algorithm") if algorithm else None
    if length > LENGTH_MAX or (length and known is not Status.OK):
        raise Malformed(f"a payload of {length} bytes")
    return Reply(
        status=known,
        flags=ReplyFlag(flags & ReplyFlag.NOT_OWNER),
        request_id=request_id,
        view=view,
        size=size,
        mtime_ns=mtime_ns,
        offset=offset,
        length=length,
        algorithm=kept,
        block_bytes=block_bytes,
        sums=struct.unpack(f"!{count}Q", rest[: count * 8]),
        retry_after_ms=retry_ms,
        text=rest[count * 8 :].decode(errors="replace"),
    )


def refusal(request_id: int, error: BaseException) -> Reply:
    """The reply that carries an error; of what is not ours it tells nothing but the type."""
    ours = isinstance(error, HotshardError)
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return Reply(
        status=Status[code_name(error)],
        request_id=request_id,
        retry_after_ms=int(retry_after_s * 1000),
        text=str(error) if ours else f"internal error ({type(error).__name__})",
    )


def error_of(reply: Reply, uri: str) -> HotshardError:
    """The typed error of a refusal."""
    kind = BY_CODE.get(reply.status.name, InternalError)
    if issubclass(kind, Overloaded):
        return kind(reply.text, uri=uri, retry_after_s=reply.retry_after_ms / 1000)
    return kind(reply.text, uri=uri)


def _known(kind: type[E], value: int, name: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise Malformed(f"{name} {value} is not known") from error


def _check_names(uri_bytes: int, version_bytes: int) -> None:
    if not 0 < uri_bytes <= URI_BYTES_MAX or version_bytes > VERSION_BYTES_MAX:
        raise Malformed(f"a uri of {uri_bytes} and a version of {version_bytes} bytes")

"""The way to a server over gRPC, for clients that have no local socket, with blocking calls.

Bytes come from the bulk ports of the members that own them (bulkports.py) where those can be reached. Else
they come as a stream of messages and are copied once, into the caller's buffer if there is one. A
refusal travels as a typed `hotshard.v1.Error` in the trailing metadata; a status without one means that
the connection, not the object, is the problem.

A forked child never touches its parent's channel: it makes its own. gRPC allows that only with its fork
support on, which is an environment variable read at import; importing this module sets it.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "true")

import grpc

from hotshard import calls
from hotshard.bulkports import Attempt, BulkPorts, Location, NoWay, location_from_pb
from hotshard.core.errors import (
    HotshardError,
    InternalError,
    PermissionDenied,
    ServerUnavailable,
)
from hotshard.options import Options
from hotshard.replies import page_from_pb, progress_from_pb, stats_from_pb, status_from_pb
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import error_from_pb, info_from_pb

log = logging.getLogger(__name__)

ERROR_KEY = "hotshard-error-bin"
CHECK_S = 5.0  # how long a first connection may take
LOCATE_S = 10.0
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),  # a peer that vanished is noticed while a reply is awaited
    ("grpc.use_local_subchannel_pool", 1),  # ours alone; a child must not meet its parent's
)


class Gathered:
    """The bytes of one Fetch as its messages come."""

    def __init__(self, call: calls.Fetch) -> None:
        self._call = call
        self._info: Any = None
        self._chunks: list[bytes] = []
        self._count = 0

    def take(self, message: pb.ReadReply) -> None:
        """One message."""
        if self._info is None:
            self._info = info_from_pb(message.object)
        data = message.data
        end = self._count + len(data)
        if end > self._call.length:
            raise InternalError(f"more bytes of {self._call.uri} came than were asked for")
        if self._call.view is None:
            self._chunks.append(data)
        else:
            self._call.view[self._count : end] = data
        self._count = end

    def fetched(self) -> calls.Fetched:
        """All of it."""
        if self._info is None:
            raise InternalError(f"the server said nothing of {self._call.uri}")
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return calls.Fetched(self._info, data, self._count)


class Ticket:
    """A call under way: unary (`decode` its reply), the head of a stream, or a Fetch (`gathered`).

    A Fetch that may come from a bulk port (`fetch`) begins with a Locate, or with nothing to wait for.
    """

    __slots__ = ("decode", "fetch", "gathered", "rpc", "stream")

    def __init__(
        self,
        rpc: Any,
        decode: Callable[[Any], Any] | None,
        gathered: Gathered | None,
        *,
        stream: bool = False,
        fetch: calls.Fetch | None = None,
    ) -> None:
        self.rpc = rpc
        self.fetch = fetch
        self.decode = decode
        self.gathered = gathered
        self.stream = stream

    def reply(self, message: Any) -> Any:
        """The value in the one message that counts; None: the stream ended without it."""
        if message is None or self.decode is None:
            raise InternalError("the cache server ended its answer early")
        return self.decode(message)


def _list_request(call: calls.ListPage) -> types_pb2.ListRequest:
    return types_pb2.ListRequest(
        prefix=call.prefix,
        recursive=call.recursive,
        page_token=call.token,
        page_size=call.page_size,
    )


# call -> (method, its request, what becomes of its reply or of the first message of it)
_METHODS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    calls.Stat: ("Stat", lambda call: types_pb2.StatRequest(uri=call.uri), info_from_pb),
    calls.StatMany: (
        "StatMany",
        lambda call: types_pb2.StatManyRequest(uris=call.uris),
        stats_from_pb,
    ),
    calls.ListPage: ("List", _list_request, page_from_pb),
    calls.Prefetch: (
        "Prefetch",
        lambda call: types_pb2.PrefetchRequest(uris=call.uris),
        lambda reply: reply.job_id,
    ),
    calls.WarmStatus: (
        "WarmStatus",
        lambda call: types_pb2.WarmStatusRequest(
            job_id=call.job_id, wait_ms=int(call.wait_s * 1000)
        ),
        progress_from_pb,
    ),
    calls.Status: ("Status", lambda _: types_pb2.StatusRequest(), status_from_pb),
}
_STREAMS = frozenset({"List", "Prefetch"})


def status_error(target: str, error: grpc.RpcError) -> HotshardError:
    """The typed error of a failed call."""
    call: Any = (
        error  # has code(), details() and trailing_metadata(), which the base does not declare
    )
    for key, value in call.trailing_metadata() or ():
        if key == ERROR_KEY:
            return error_from_pb(types_pb2.Error.FromString(value))
    code, details = call.code(), call.details()
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return PermissionDenied(f"{target}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerUnavailable(f"the cache server at {target} does not answer")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ServerUnavailable(f"no cache server answers at {target}: {details}")
    return InternalError(f"the cache server at {target} failed: {code.name}: {details}")


def credentials(options: Options) -> grpc.ChannelCredentials | None:
    """What a channel is encrypted with; None: not at all."""
    if not options.tls:
        return None
    return grpc.ssl_channel_credentials(
        _content(options.ca), _content(options.key), _content(options.certificate)
    )


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


class RemoteTransport:
    """The blocking channel of one client."""

    passes_files = False

    def __init__(self, target: str, options: Options) -> None:
        self._target = target
        self._options = options
        self._bulk = BulkPorts(options)
        self._pid = os.getpid()
        self._channel: grpc.Channel | None = None
        self._inherited: list[grpc.Channel] = []  # never closed here, it is the parent's

    def check(self) -> None:
        """Find out at once whether a server is there."""
        try:
            grpc.channel_ready_future(self.channel()).result(min(CHECK_S, self._options.timeout_s))
        except grpc.FutureTimeoutError as error:
            raise ServerUnavailable(f"no cache server answers at {self._target}") from error

    def channel(self) -> grpc.Channel:
        """This process's channel."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            if self._channel is not None:
                self._inherited.append(self._channel)
                self._channel = None
        if self._channel is None:
            found = credentials(self._options)
            if found is None:
                self._channel = grpc.insecure_channel(self._target, CHANNEL_OPTIONS)
            else:
                self._channel = grpc.secure_channel(self._target, found, CHANNEL_OPTIONS)
        return self._channel

    def line(self) -> "RemoteLine":
        """What one operation talks through."""
        stub = cache_pb2_grpc.CacheStub(self.channel())
        return RemoteLine(stub, self._target, self._options.timeout_s, self._bulk)

    def hang_up(self) -> None:
        """Close the channel; the next operation would make another."""
        self._bulk.close()
        if self._channel is not None and self._pid == os.getpid():
            self._channel.close()
            self._channel = None


class Calls:
    """The calls of one operation, however they are waited for."""

    def __init__(self, stub: Any, target: str, timeout_s: float, bulk: BulkPorts) -> None:
        self._stub = stub
        self._bulk = bulk
        self._target = target
        self._timeout_s = timeout_s
        self._under_way: set[Ticket] = set()

    def end(self) -> None:
        """Give up what is still under way."""
        for ticket in list(self._under_way):
            self._done(ticket)

    def tell(self, _touch: calls.Touch) -> None:
        """There is nothing to tell: every read passes the server."""

    def _begin(self, call: calls.Call) -> Ticket:
        if isinstance(call, calls.Fetch):
            if not self._bulk.worth_it(call):
                return self._read(call)
            rpc = None
            if self._bulk.known(call) is None:
                request = pb.LocateRequest(uri=call.uri, version=call.version)
                locate = self._unary(self._stub.Locate)
                rpc = locate(request, timeout=min(LOCATE_S, self._timeout_s))
            ticket = Ticket(rpc, None, None, fetch=call)
        else:
            method, encode, decode = _METHODS[type(call)]
            stream = method in _STREAMS
            start = getattr(self._stub, method)
            start = start if stream else self._unary(start)
            rpc = start(encode(call), timeout=self._timeout_s)
            ticket = Ticket(rpc, decode, None, stream=stream)
        self._under_way.add(ticket)
        return ticket

    def _read(self, call: calls.Fetch) -> Ticket:
        """A Fetch over gRPC."""
        request = pb.ReadRequest(
            uri=call.uri, version=call.version, offset=call.offset, length=call.length
        )
        rpc = self._stub.Read(request, timeout=self._timeout_s)
        ticket = Ticket(rpc, None, Gathered(call), stream=True)
        self._under_way.add(ticket)
        return ticket

    def _located(self, reply: pb.LocateReply) -> Location:
        location = location_from_pb(reply)
        self._bulk.learn(location)
        return location

    def _not_located(self, error: grpc.RpcError) -> None:
        """What is wrong the Read will say, unless it is only that the server knows no Locate."""
        code: Any = error
        if code.code() is grpc.StatusCode.UNIMPLEMENTED:
            self._bulk.useless()

    def _done(self, ticket: Ticket) -> None:
        self._under_way.discard(ticket)
        if ticket.rpc is not None:
            ticket.rpc.cancel()  # what is left of a stream; nothing if it has ended

    def _unary(self, method: Any) -> Any:
        """How to start a call that has one reply, without waiting for it."""
        return method


class RemoteLine(Calls):
    """The blocking one."""

    def submit(self, call: calls.Call) -> object:
        """Start a call."""
        try:
            return self._begin(call)
        except ValueError as error:  # another thread has closed the channel
            raise ServerUnavailable(f"{self._target}: {error}") from error

    def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        if ticket.fetch is not None:
            found = self._from_bulk(ticket, ticket.fetch)
            if found is not None:
                return found
            ticket = self._read(ticket.fetch)
        try:
            if ticket.gathered is not None:
                for message in ticket.rpc:
                    ticket.gathered.take(message)
                return ticket.gathered.fetched()
            return ticket.reply(next(ticket.rpc, None) if ticket.stream else ticket.rpc.result())
        except grpc.RpcError as error:
            raise status_error(self._target, error) from error
        finally:
            self._done(ticket)

    def _from_bulk(self, ticket: Ticket, call: calls.Fetch) -> calls.Fetched | None:
        try:
            location = self._bulk.known(call) if ticket.rpc is None else None
            if location is None:
                location = self._located(ticket.rpc.result())
            return self._bulk.fetch(call, location, Attempt())
        except NoWay as reason:
            log.debug("%s over gRPC: %s", call.uri, reason)
        except grpc.RpcError as error:
            self._not_located(error)
        finally:
            self._done(ticket)
        return None

    def _unary(self, method: Any) -> Any:
        return method.future

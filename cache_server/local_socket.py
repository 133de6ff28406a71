"""The local socket: pods of this node ask here, and get open files.

SOCK_SEQPACKET, one protobuf message a packet (local.proto), descriptors beside the replies. What can be
answered from memory is answered in the reader callback, without a task: that is the path of every warm
read. The rest runs in tasks that belong to the server.

Limits: CONNECTIONS_MAX connections, REQUESTS_MAX requests under way on each (then we stop reading from
it), REPLIES_MAX replies waiting to be sent (likewise), HELLO_TIMEOUT_S for the first message. A client
that sends garbage is told so and disconnected; nobody else notices.
"""

import asyncio
import logging
import os
import socket
import stat
import struct
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cache_server.cache import Cache
from cache_server.flight import Spawn
from cache_server.metrics import Metrics
from cache_server.opened import Ask, Opened
from cache_server.replies import Statuses, page_to_pb, progress_to_pb, stat_result_to_pb
from cache_server.warm import Warmer
from hotshard.core.errors import (
    ConfigError,
    HotshardError,
    InvalidRequest,
    OriginUnavailable,
    Overloaded,
    PermissionDenied,
)
from hotshard.openfile import OpenFile
from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import PROTOCOL, error_to_pb, info_to_pb

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 4096
REQUESTS_MAX = 64
REPLIES_MAX = 64
HELLO_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 120.0  # for clients that name none
MESSAGE_BYTES_MAX = 192 << 10  # a packet must fit the socket buffer (net.core.wmem_max: 208 KiB)
OPENS_MAX = 128  # per OpenMany: 128 descriptors of the 253 the kernel passes at once
STATS_MAX = 100
URIS_MAX = 100
LIST_PAGE_MAX = 80  # 1 KiB keys still fit a packet
PACKETS_PER_WAKE = 16  # then other connections have their turn

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class LocalTools:
    """What the local socket answers with."""

    cache: Cache
    warmer: Warmer
    statuses: Statuses
    metrics: Metrics
    spawn: Spawn
    node_id: str
    version: str


class LocalSocketServer:
    """The listening socket and its connections."""

    def __init__(
        self, path: str, tools: LocalTools, *, mode: int, allowed_uids: frozenset[int] | None
    ) -> None:
        self._path = path
        self._tools = tools
        self._mode = mode
        self._allowed_uids = allowed_uids
        self._listener: socket.socket | None = None
        self._inode = 0
        self._connections: set[_Connection] = set()
        # One for all connections: a packet is parsed before the next one is read.
        self._buffer = bytearray(MESSAGE_BYTES_MAX)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the path cannot be bound, or another server listens there.
        """
        try:
            listener, self._inode = await asyncio.to_thread(_listen, self._path, self._mode)
        except OSError as error:
            problem = f"local_socket.path: {self._path}: {error.strerror}"
            raise ConfigError([problem]) from error
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    async def close(self, grace_s: float) -> None:
        """Stop accepting, tell the subscribers, let requests under way finish, disconnect."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.to_thread(_unlink, self._path, self._inode)
        listener.close()
        for connection in list(self._connections):
            connection.going_away()
        try:
            async with asyncio.timeout(grace_s):
                for connection in list(self._connections):
                    await connection.idle.wait()
        except TimeoutError:
            log.warning("local socket: requests still under way after %.0f s", grace_s)
        for connection in list(self._connections):
            connection.close("server stopped")

    def _accept(self) -> None:
        assert self._listener is not None, "the reader is removed on close"
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # EMFILE and the like: the client waits in the backlog
            log.warning("local socket: cannot accept: %s", error)
            return
        sock.setblocking(False)  # noqa: FBT003
        _, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        connection = _Connection(sock, self._buffer, self._tools, self._connections.discard)
        if self._allowed_uids is not None and uid not in self._allowed_uids:
            connection.refuse(PermissionDenied(f"uid {uid} is not in local_socket.allowed_uids"))
        elif len(self._connections) >= CONNECTIONS_MAX:
            connection.refuse(Overloaded(f"{CONNECTIONS_MAX} local connections are open"))
        else:
            self._connections.add(connection)
            self._tools.metrics.connections("local", len(self._connections))
            connection.start()


class _Connection:
    """One client."""

    def __init__(
        self,
        sock: socket.socket,
        buffer: bytearray,
        tools: LocalTools,
        on_close: Callable[["_Connection"], None],
    ) -> None:
        self._sock = sock
        self._tools = tools
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._replies: deque[tuple[bytes, list[OpenFile]]] = deque()
        self._under_way = 0
        self._reading = False
        self._subscribed = False
        self._hello_timer: asyncio.TimerHandle | None = None
        self._buffer = buffer
        self.idle = asyncio.Event()
        self.idle.set()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES_MAX)

    def start(self) -> None:
        """Begin to read requests."""
        self._hello_timer = self._loop.call_later(
            HELLO_TIMEOUT_S, self.close, f"said nothing for {HELLO_TIMEOUT_S:.0f} s"
        )
        self._resume()

    def refuse(self, error: HotshardError) -> None:
        """Say why not, and disconnect."""
        self._reply(0, pb.LocalReply(error=error_to_pb(error)))
        self.close(str(error))

    def going_away(self) -> None:
        """The server stops: tell the client if it wants to know, take no more requests."""
        self._pause()
        if self._subscribed:
            kind = pb.Notice.KIND_GOING_AWAY
            self._reply(0, pb.LocalReply(notice=pb.Notice(kind=kind)))

    def close(self, reason: str) -> None:
        """Disconnect; idempotent. Requests under way finish unheard."""
        if self._sock.fileno() < 0:
            return
        log.debug("local connection closed: %s", reason)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._pause()
        self._loop.remove_writer(self._sock.fileno())
        self._replies.clear()
        self._sock.close()
        self.idle.set()
        self._on_close(self)

    # -- requests ----------------------------------------------------------------------------------

    def _resume(self) -> None:
        full = self._under_way >= REQUESTS_MAX or len(self._replies) >= REPLIES_MAX
        if not self._reading and not full and self._sock.fileno() >= 0:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(PACKETS_PER_WAKE):
            if not self._reading:
                return
            try:
                size = self._sock.recv_into(self._buffer, 0, socket.MSG_TRUNC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(str(error))
                return
            if not size:
                self.close("by the client")
                return
            self._packet(size)

    def _packet(self, size: int) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None
        if size > MESSAGE_BYTES_MAX:
            self._bad(f"a message of {size} bytes: at most {MESSAGE_BYTES_MAX}")
            return
        try:
            request = pb.LocalRequest.FromString(bytes(memoryview(self._buffer)[:size]))
        except DecodeError:
            self._bad("not a hotshard message")
            return
        call = request.WhichOneof("call")
        if call is None:
            self._bad("no such call in this version of the server")
        elif call == "touch":
            self._tools.cache.touch(request.touch.uris[:URIS_MAX])
        elif not (call == "open" and self._open_now(request)):
            self._under_way += 1
            self.idle.clear()
            if self._under_way >= REQUESTS_MAX:
                self._pause()
            self._tools.spawn(self._answer(call, request))

    def _bad(self, reason: str) -> None:
        self._tools.metrics.bad_message("local")
        self.refuse(InvalidRequest(reason))

    def _open_now(self, request: pb.LocalRequest) -> bool:
        """The warm path: answer an open from memory, if that is possible."""
        ask = request.open
        opened = self._tools.cache.open_now(ask.uri, ask.version, ask.offset, ask.length)
        if opened is None:
            return False
        files: list[OpenFile] = []
        reply = pb.LocalReply(id=request.id, open=_open_to_pb(opened, files))
        self._send(reply.SerializeToString(), files)
        return True

    async def _answer(self, call: str, request: pb.LocalRequest) -> None:
        files: list[OpenFile] = []
        timeout_s = request.timeout_ms / 1000 or REQUEST_TIMEOUT_S
        with self._tools.metrics.request("local", call) as outcome:
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await _CALLS[call](self, request, files)
            except TimeoutError:
                late = OriginUnavailable(f"no answer within {timeout_s:.1f} s")
                reply = pb.LocalReply(error=error_to_pb(late))
                outcome.failed(late)
            except HotshardError as error:
                reply = pb.LocalReply(error=error_to_pb(error))
                outcome.failed(error)
            except Exception as error:  # the loop of requests: log it, answer, go on
                log.exception("local %s", call)
                reply = pb.LocalReply(error=error_to_pb(error))
                outcome.failed(error)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self.idle.set()
        self._reply(request.id, reply, files)
        self._resume()

    async def _hello(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        return pb.LocalReply(
            hello=pb.HelloReply(
                protocol=min(PROTOCOL, request.hello.protocol or PROTOCOL),
                server=f"hotshard/{self._tools.version}",
                node_id=self._tools.node_id,
                max_message_bytes=MESSAGE_BYTES_MAX,
            )
        )

    async def _open(self, request: pb.LocalRequest, files: list[OpenFile]) -> pb.LocalReply:
        ask = request.open
        opened = await self._tools.cache.open(ask.uri, ask.version, ask.offset, ask.length)
        return pb.LocalReply(open=_open_to_pb(opened, files))

    async def _open_many(self, request: pb.LocalRequest, files: list[OpenFile]) -> pb.LocalReply:
        opens = request.open_many.opens
        _at_most(len(opens), OPENS_MAX, "opens")
        asks = [Ask(o.uri, o.version, o.offset, o.length) for o in opens]
        reply = pb.OpenManyReply()
        for answer in await self._tools.cache.open_many(asks):
            result = reply.results.add()
            if isinstance(answer, Opened):
                result.open.CopyFrom(_open_to_pb(answer, files))
            else:
                result.error.CopyFrom(error_to_pb(answer))
        return pb.LocalReply(open_many=reply)

    async def _stat(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        return pb.LocalReply(stat=info_to_pb(await self._tools.cache.stat(request.stat.uri)))

    async def _stat_many(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        uris = request.stat_many.uris
        _at_most(len(uris), STATS_MAX, "uris")
        answers = await self._tools.cache.stat_many(uris)
        results = [stat_result_to_pb(answer) for answer in answers]
        return pb.LocalReply(stat_many=types_pb2.StatManyReply(results=results))

    async def _list(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        ask = request.list
        page = await self._tools.cache.list_page(
            ask.prefix,
            recursive=ask.recursive,
            token=ask.page_token,
            page_size=min(ask.page_size or LIST_PAGE_MAX, LIST_PAGE_MAX),
        )
        return pb.LocalReply(list=page_to_pb(page))

    async def _prefetch(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        job_id = self._tools.warmer.start(request.prefetch.uris)
        return pb.LocalReply(prefetch=pb.PrefetchReply(job_id=job_id))

    async def _warm_status(self, request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        ask = request.warm_status
        state = await self._tools.warmer.progress(ask.job_id, ask.wait_ms / 1000)
        return pb.LocalReply(warm_status=progress_to_pb(state))

    async def _subscribe(self, _request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        self._subscribed = True
        return pb.LocalReply(notice=pb.Notice())

    async def _status(self, _request: pb.LocalRequest, _: list[OpenFile]) -> pb.LocalReply:
        return pb.LocalReply(status=self._tools.statuses.status())

    # -- replies -----------------------------------------------------------------------------------

    def _reply(self, request_id: int, reply: pb.LocalReply, files: Sequence[OpenFile] = ()) -> None:
        reply.id = request_id
        self._send(reply.SerializeToString(), list(files))

    def _send(self, packet: bytes, files: list[OpenFile]) -> None:
        if self._sock.fileno() < 0:
            return
        if self._replies or not self._send_now(packet, files):
            self._replies.append((packet, files))
            if len(self._replies) == 1:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            if len(self._replies) >= REPLIES_MAX:
                self._pause()

    def _send_now(self, packet: bytes, files: list[OpenFile]) -> bool:
        """Send one packet; False: the client has to read first."""
        fds = array("i", [file.fd for file in files])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if files else []
        try:
            self._sock.sendmsg([packet], rights)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.close(str(error))
        return True

    def _writable(self) -> None:
        while self._replies:
            packet, files = self._replies[0]
            if not self._send_now(packet, files):
                return
            if self._replies:  # unless the send failed and closed the connection
                self._replies.popleft()
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())
            self._resume()


_Call = Callable[[_Connection, pb.LocalRequest, list[OpenFile]], Awaitable[pb.LocalReply]]

# ruff: noqa: SLF001 - the table of calls belongs to the class above
_CALLS: dict[str, _Call] = {
    "hello": _Connection._hello,
    "open": _Connection._open,
    "open_many": _Connection._open_many,
    "stat": _Connection._stat,
    "stat_many": _Connection._stat_many,
    "list": _Connection._list,
    "prefetch": _Connection._prefetch,
    "warm_status": _Connection._warm_status,
    "subscribe": _Connection._subscribe,
    "status": _Connection._status,
}


def _open_to_pb(opened: Opened, files: list[OpenFile]) -> pb.OpenReply:
    """The reply to an open; its files are added to `files`, in the order that fd_index counts."""
    info = opened.info
    extents = []
    for extent in opened.extents:
        extents.append(
            pb.Extent(
                object_offset=extent.object_offset,
                length=extent.length,
                fd_index=len(files),
                file_offset=extent.file_offset,
                sealed=extent.sealed,
            )
        )
        files.append(extent.file)
    return pb.OpenReply(
        object=info_to_pb(info), extents=extents, lease_ms=int(opened.lease_s * 1000)
    )


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidRequest(f"{count} {what} in one message: at most {limit}")


def _listen(path: str, mode: int) -> tuple[socket.socket, int]:
    """A listening socket at `path` and the inode of its file; takes the place of a dead server's."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        _remove_dead(path)
        listener.bind(path)
        os.chmod(path, mode)
        listener.listen(256)
        return listener, os.stat(path).st_ino
    except OSError:
        listener.close()
        raise


def _remove_dead(path: str) -> None:
    """Remove a socket file that no process listens on; anything else is left for bind() to refuse."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _unlink(path: str, inode: int) -> None:
    """Remove our socket file, unless a successor has already put its own there."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        log.debug("%s was gone already", path)

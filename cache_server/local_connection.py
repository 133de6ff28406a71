"""One client of the local socket: reads requests, sends replies with the files that go with them.

What can be answered from memory is answered in the reader callback, without a task: that is the path of
every warm read. The rest runs in tasks that belong to the server.

Limits: REQUESTS_MAX requests under way (then we stop reading), REPLIES_MAX replies that wait to be sent
(likewise), HELLO_TIMEOUT_S for the first message. A client that sends garbage is told so and
disconnected; nobody else notices.
"""

import asyncio
import logging
import socket
from array import array
from collections import deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from cache_server.local_calls import CALLS, MESSAGE_BYTES_MAX, LocalCalls
from cache_server.scope import as_id, current_id
from hotshard.core.errors import HotshardError, InvalidRequest, OriginUnavailable
from hotshard.openfile import OpenFile
from hotshard.v1 import local_pb2 as pb
from hotshard.wire import error_to_pb, request_number

log = logging.getLogger(__name__)

REQUESTS_MAX = 64
REPLIES_MAX = 64
REPLY_BYTES_MAX = 256 << 10  # what a client has room for
HELLO_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 120.0  # for clients that name none
PACKETS_PER_WAKE = 16  # then other connections have their turn


class LocalConnection:
    """One client."""

    def __init__(
        self,
        sock: socket.socket,
        buffer: bytearray,
        calls: LocalCalls,
        on_close: Callable[["LocalConnection"], None],
    ) -> None:
        self._sock = sock
        self._calls = calls
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._replies: deque[tuple[bytes, list[OpenFile]]] = deque()
        self._under_way = 0
        self._reading = False
        self._subscribed = False
        self._leaving = False
        self._request_base = 0
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
        self._leaving = True
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
        if not (self._reading or full or self._leaving) and self._sock.fileno() >= 0:
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
            self._calls.touch(request)
        elif call == "subscribe":
            self._subscribed = True
            self._reply(request.id, pb.LocalReply(notice=pb.Notice()))
        elif not (call == "open" and self._open_now(request)):
            if call == "hello":
                self._request_base = request.hello.request_base
            self._under_way += 1
            self.idle.clear()
            if self._under_way >= REQUESTS_MAX:
                self._pause()
            self._calls.spawn(self._answer(call, request))

    def _bad(self, reason: str) -> None:
        self._calls.metrics.bad_message("local")
        self.refuse(InvalidRequest(reason))

    def _open_now(self, request: pb.LocalRequest) -> bool:
        """Answer an open from memory, if that is possible."""
        began_s = self._loop.time()
        files: list[OpenFile] = []
        reply = self._calls.open_now(request, files)
        if reply is None:
            return False
        self._reply(request.id, reply, files)
        self._calls.metrics.request_done("local", "open", "ok", self._loop.time() - began_s)
        return True

    async def _answer(self, call: str, request: pb.LocalRequest) -> None:
        files: list[OpenFile] = []
        timeout_s = request.timeout_ms / 1000 or REQUEST_TIMEOUT_S
        number = request_number(self._request_base, request.id) if self._request_base else 0
        request_id = as_id(number) if number else ""
        uri = request.open.uri or request.stat.uri
        with self._calls.requests.begin("local", call, request_id, uri=uri) as outcome:
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await CALLS[call](self._calls, request, files)
            except TimeoutError:
                late = OriginUnavailable(f"no answer within {timeout_s:.1f} s")
                reply = _refusal(late)
                outcome.failed(late)
            except HotshardError as error:
                reply = _refusal(error)
                outcome.failed(error)
            except Exception as error:  # the loop of requests: log it, answer, go on
                log.exception("local %s", call)
                reply = _refusal(error)
                outcome.failed(error)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self.idle.set()
        self._reply(request.id, reply, files)
        self._resume()

    # -- replies -----------------------------------------------------------------------------------

    def _reply(
        self, request_id: int, reply: pb.LocalReply, files: list[OpenFile] | None = None
    ) -> None:
        reply.id = request_id
        packet = reply.SerializeToString()
        if len(packet) > REPLY_BYTES_MAX:
            size = InvalidRequest(f"the reply would have {len(packet)} bytes: ask for less at once")
            self._reply(request_id, _refusal(size))
        else:
            self._send(packet, files or [])

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


def _refusal(error: Exception) -> pb.LocalReply:
    refusal = error_to_pb(error)
    refusal.request = current_id()
    return pb.LocalReply(error=refusal)

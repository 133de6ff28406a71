"""One connection to a bulk port, with blocking calls, for use by one thread at a time.

The server's peers and remote clients both talk through it. Payload is received into one buffer per thread,
handed to a sink and overwritten: it never becomes a bytes object. On plain TCP the kernel keeps the time
(SO_RCVTIMEO), fills the buffer (MSG_WAITALL) and wakes the thread up for half a mebibyte at a time
(SO_RCVLOWAT); measured beside splice with a second look for the checksum in docs/BULK.md. Every call ends
at its deadline.
"""

import contextlib
import errno
import mmap
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from hotshard.core import bulkwire as wire

BUFFER_BYTES = 1 << 20
_LOW_WATER_BYTES = 512 << 10
UNACKNOWLEDGED_MS = 1000
"""How long the other host's kernel may leave what we sent unacknowledged. A process that is busy does not
delay it, so this is shorter than any limit for an answer."""
PENDING_MAX_S = 60.0
"""How long a peer may say that it is still at it."""
_TIMEVAL = struct.Struct("@ll")
_LEAST_WAIT_S = 0.001

Sink = Callable[[memoryview], None]
"""Takes the next bytes of a payload; the memory is overwritten after it has returned."""


class LineBroken(Exception):
    """The connection is of no more use: closed, too slow, or not speaking the protocol."""

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale
        """It had been kept idle, and nothing of an answer came: a fresh one may do better."""


class Unacknowledged(LineBroken):
    """The other host is silent: nobody there, or no way to it."""


class Foreign(LineBroken):
    """Another program answers at this address."""


class BulkLine:
    """See the module."""

    def __init__(
        self, host: str, port: int, *, connect_s: float, tls: ssl.SSLContext | None = None
    ) -> None:
        """Connect.

        Raises:
            LineBroken: nobody answers there, or the certificate cannot be trusted.
        """
        self.idle_since = 0.0
        self.waited_s = 0.0
        """The longest that the other side kept us waiting in the last exchange, or with its payload."""
        self._used = False
        self._waitall = 0 if tls else socket.MSG_WAITALL
        try:
            self.sock = _connected(host, port, connect_s, tls)
        except OSError as error:
            raise LineBroken(f"cannot connect to {host}:{port}: {error}") from error

    def exchange(self, request: wire.Request, limit_s: float) -> wire.Reply:
        """Send a request and receive the head of the reply to it.

        Args:
            request: what to ask.
            limit_s: for the reply to begin, or for the peer to say that it is still at it.

        Raises:
            LineBroken: see there.
            Foreign: what answers is no bulk port.
        """
        began = asked = time.monotonic()
        self.waited_s = 0.0
        try:
            self._send(wire.encode_request(request), began + limit_s)
            while True:
                reply = self._reply(request, asked + limit_s)
                now = time.monotonic()
                self.waited_s = max(self.waited_s, now - asked)
                if reply.status is not wire.Status.PENDING:
                    return reply
                if now > began + PENDING_MAX_S:
                    raise LineBroken("the peer is still fetching it")
                asked = now
        except wire.Malformed as error:
            raise Foreign(str(error)) from error

    def payload(self, length: int, sink: Sink, limit_s: float) -> None:
        """Hand exactly `length` bytes of payload to the sink, in pieces.

        Args:
            length: of the payload.
            sink: takes it; its own time does not count.
            limit_s: for all of it to come.

        Raises:
            LineBroken: see there.
        """
        left_s, buffer = limit_s, _buffer()
        # However little of a piece is missing, behind it as much has to come as wakes us up.
        enough = BUFFER_BYTES + _LOW_WATER_BYTES
        patient = bool(self._waitall) and length >= enough
        if patient:
            self._low_water(_LOW_WATER_BYTES)
        while length:
            if patient and length < enough:
                patient = False
                self._low_water(1)
            piece = buffer[: min(length, BUFFER_BYTES)]
            began = time.monotonic()
            self._fill(piece, began + left_s)
            left_s -= time.monotonic() - began
            sink(piece)
            length -= len(piece)
        self.waited_s = max(self.waited_s, limit_s - left_s)

    def payload_into(self, view: memoryview, limit_s: float) -> None:
        """Receive a payload of the length of `view` straight into it.

        Raises:
            LineBroken: see there.
        """
        began = time.monotonic()
        self._fill(view, began + limit_s)
        self.waited_s = max(self.waited_s, time.monotonic() - began)

    def abort(self) -> None:
        """Wake up the thread that waits for the other side; it raises LineBroken."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection up."""
        self.sock.close()

    def _reply(self, request: wire.Request, deadline_s: float) -> wire.Reply:
        buffer = _buffer()
        head = buffer[: wire.REPLY_HEAD_BYTES]
        self._fill(head, deadline_s, first=True)
        kept = bytes(head)
        rest = buffer[: wire.reply_rest(kept)]
        self._fill(rest, deadline_s)
        reply = wire.decode_reply(kept, bytes(rest))
        if reply.request_id not in {request.request_id, 0}:
            raise LineBroken("an answer to another request")
        if reply.length > request.length:
            raise LineBroken(f"{reply.length} bytes of payload, {request.length} were asked for")
        self._used = True
        return reply

    def _send(self, data: bytes, deadline_s: float) -> None:
        try:
            self._arm(socket.SO_SNDTIMEO, deadline_s)
            self.sock.sendall(data)
        except OSError as error:
            raise LineBroken(f"the connection broke: {error}", stale=self._used) from error

    def _fill(self, view: memoryview, deadline_s: float, *, first: bool = False) -> None:
        done = 0
        while done < len(view):
            self._arm(socket.SO_RCVTIMEO, deadline_s)
            try:
                count = self.sock.recv_into(view[done:], 0, self._waitall)
            except (BlockingIOError, TimeoutError) as error:
                if error.errno == errno.ETIMEDOUT:  # by TCP_USER_TIMEOUT
                    raise Unacknowledged("the other host does not answer") from error
                raise LineBroken("no answer in time") from error
            except OSError as error:
                stale = first and self._used and not done
                raise LineBroken(f"the connection broke: {error}", stale=stale) from error
            if not count:
                stale = first and self._used and not done
                raise LineBroken("the connection was closed by the other side", stale=stale)
            done += count

    def _low_water(self, size: int) -> None:
        """How much has to be there before the kernel wakes us up."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        except OSError as error:  # closed under us
            raise LineBroken(f"the connection broke: {error}") from error

    def _arm(self, option: int, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise LineBroken("no answer in time")
        if not self._waitall:  # TLS reads in its own loop: Python has to keep the time
            self.sock.settimeout(left_s)
            return
        seconds, rest = divmod(max(left_s, _LEAST_WAIT_S), 1.0)
        limit = _TIMEVAL.pack(int(seconds), int(rest * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, option, limit)


_local = threading.local()


def _buffer() -> memoryview:
    """This thread's, warm from its last payload; private, so that a forked child has its own."""
    found: memoryview | None = getattr(_local, "buffer", None)
    if found is None:
        memory = mmap.mmap(-1, BUFFER_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        found = _local.buffer = memoryview(memory)
    return found


def _connected(host: str, port: int, connect_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    # The buffers are the kernel's business: its own tuning did better than a size set here.
    sock = socket.create_connection((host, port), connect_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        if tls is not None:
            return tls.wrap_socket(sock, server_hostname=host)
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    return sock

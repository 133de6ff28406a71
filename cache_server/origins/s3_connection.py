"""One persistent connection to S3, with blocking calls, for use by one thread at a time.

Payload is received into the connection's buffer, handed to a sink, and overwritten: it never becomes a
bytes object. On plain TCP the kernel keeps the time (SO_RCVTIMEO) and fills the buffer (MSG_WAITALL), so
that a quarter of a mebibyte costs one system call; Python's own timeouts would poll before each.
Every failure of the network is a Transient; errors of the sink pass through untouched.
"""

import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from cache_server.origins.http1 import HEAD_BYTES_MAX, Head, MalformedResponse, parse_head
from cache_server.origins.s3_replies import Transient
from cache_server.origins.sigv4 import Signer
from hotshard.core.errors import OriginUnavailable

BUFFER_BYTES = 256 << 10  # fits L2; 1 MiB was no faster, and every connection has one (docs/adr/0002)
_ADDRESSES_MAX = 3
_TIMEVAL = struct.Struct("@ll")

Sink = Callable[[memoryview], None]
"""Takes the next bytes of a body; the memory is overwritten after it has returned."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the objects of one bucket are."""

    host: str
    port: int
    authority: str
    """The Host header."""
    path: str
    """What stands before the key: "/", or "/bucket/"."""
    tls: ssl.SSLContext | None
    signer: Signer | None
    """None: anonymous."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for the network."""

    connect_s: float
    read_s: float
    """For the answer to begin, and between any two pieces of it."""


class StaleConnection(Exception):
    """A kept connection was closed by the other side before it answered: no fault, try a new one."""


class Connection:
    """See the module."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts) -> None:
        """Connect.

        Raises:
            Transient: nobody answers there.
            OriginUnavailable: the certificate cannot be trusted; no use in trying again.
        """
        self.used = False
        self.idle_since = 0.0
        self._read_s = timeouts.read_s
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._filled = 0  # [start, filled) of the buffer is body not yet handed on
        self._deadline = 0.0
        try:
            self.sock = _connect(endpoint, timeouts)
        except ssl.SSLCertVerificationError as error:
            raise OriginUnavailable(
                f"the certificate of {endpoint.host} cannot be trusted ({error.verify_message});"
                " set AWS_CA_BUNDLE to the certificate of its authority"
            ) from error
        except OSError as error:
            raise Transient(f"cannot connect to {endpoint.authority}: {error}") from error
        # What SSLSocket cannot do, and why there are two ways to receive.
        self._flags = 0 if endpoint.tls else socket.MSG_WAITALL

    def exchange(self, request: bytes, deadline: float) -> Head:
        """Send a request and receive the head of its answer.

        Raises:
            StaleConnection: the connection had been used before, and was closed in between.
            Transient: it broke, or is too slow, or does not speak HTTP.
        """
        self._deadline = deadline
        self._start = self._filled = 0
        try:
            self.sock.sendall(request)
            first = self.sock.recv_into(self._view)
        except (BrokenPipeError, ConnectionResetError) as error:
            if self.used:
                raise StaleConnection from error
            raise Transient(f"the connection broke: {error}") from error
        except OSError as error:
            raise Transient(f"no answer: {error}") from error
        if not first and self.used:
            raise StaleConnection
        if not first:
            raise Transient("the connection was closed without an answer")
        self.used = True
        self._filled = first
        return self._read_head()

    def body(self, length: int, sink: Sink) -> None:
        """Hand exactly `length` bytes of body to the sink, in pieces.

        Raises:
            Transient: the body ends early, or comes too slowly.
        """
        remaining = length - (self._filled - self._start)
        if remaining < 0:
            raise Transient("more bytes than announced")
        while True:
            room = min(remaining, BUFFER_BYTES - self._filled)
            remaining -= room
            while room:
                count = self._receive(room)
                self._filled += count
                room -= count
            if self._filled > self._start:
                sink(self._view[self._start : self._filled])
            self._start = self._filled = 0
            if not remaining:
                return

    @property
    def drained(self) -> bool:
        """Whether everything that came was taken: else the other side said more than it announced."""
        return self._start == self._filled

    def close(self) -> None:
        """Give the connection up."""
        self.sock.close()

    def _read_head(self) -> Head:
        searched = 0
        while (end := self._buffer.find(b"\r\n\r\n", searched, self._filled)) < 0:
            if self._filled >= HEAD_BYTES_MAX:
                raise Transient(f"no end of the headers within {HEAD_BYTES_MAX} bytes")
            searched = max(0, self._filled - 3)
            try:
                self._filled += self._receive_some()
            except OSError as error:
                raise Transient(f"the headers stopped coming: {error}") from error
        self._start = end + 4
        try:
            return parse_head(bytes(self._view[:end]))
        except MalformedResponse as error:
            raise Transient(str(error)) from error

    def _receive_some(self) -> int:
        """Whatever comes next of a head."""
        count = self.sock.recv_into(self._view[self._filled :])
        self._check_progress(count)
        return count

    def _receive(self, wanted: int) -> int:
        """Up to `wanted` bytes of body; all of them, if the socket can wait for them."""
        piece = self._view[self._filled : self._filled + wanted]
        try:
            count = (
                self.sock.recv_into(piece, 0, self._flags)
                if self._flags
                else self.sock.recv_into(piece)
            )
        except OSError as error:
            raise Transient(f"the body stopped coming: {error}") from error
        self._check_progress(count)
        return count

    def _check_progress(self, count: int) -> None:
        if not count:
            raise Transient("the connection was closed in the middle of an answer")
        if time.monotonic() > self._deadline:
            raise Transient("the answer comes too slowly")


def _connect(endpoint: Endpoint, timeouts: Timeouts) -> socket.socket:
    """A connected socket, to any of the host's addresses: S3 gives several, to spread the load."""
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    addresses = random.sample(found, min(len(found), _ADDRESSES_MAX))
    for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeouts.connect_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _ready(sock, endpoint, timeouts)
        except OSError:
            sock.close()
            if number == len(addresses):
                raise
    raise OSError(f"{endpoint.host} has no address")


def _ready(sock: socket.socket, endpoint: Endpoint, timeouts: Timeouts) -> socket.socket:
    if endpoint.tls:
        wrapped = endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host)
        wrapped.settimeout(timeouts.read_s)
        return wrapped
    sock.settimeout(None)
    seconds, rest = divmod(timeouts.read_s, 1.0)
    limit = _TIMEVAL.pack(int(seconds), int(rest * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock

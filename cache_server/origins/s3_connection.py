"""One persistent connection to S3 on a reactor's loop.

Payload is received into a buffer, handed to a receiver and overwritten: it never becomes a bytes object.
A small body is gathered in the connection's own buffer, until that is full or the body complete. Of a
large one, on plain TCP, the kernel is asked to gather a piece (SO_RCVLOWAT), which is received into a
buffer that all connections of the thread share, and handed on at once, but for what does not fill 64 KiB:
fewer wake-ups, and the memory that a piece goes through stays in the processor's cache. A request ends in
its receiver having had the whole answer, or in a Transient; after that the receiver is called no more.
"""

import asyncio
import mmap
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from cache_server.origins.http1 import HEAD_BYTES_MAX, Head, MalformedResponse, parse_head
from cache_server.origins.s3_replies import Unexpected
from cache_server.origins.sigv4 import Signer
from cache_server.origins.transfer import TargetFailed
from cache_server.origins.tries import Transient
from hotshard.core.errors import HotshardError, OriginUnavailable

BUFFER_BYTES = 256 << 10  # a small object fits, and every connection has one (docs/adr/0002)
SHARED_BYTES = 1 << 20
_LOW_WATER_BYTES = 512 << 10  # half of what there is room for: docs/adr/0009
_PIECES_IN_WINDOW = 8  # in what the kernel allows a connection to hold, overhead included
_LARGE_BYTES = 1 << 20  # bodies that are worth the calls that set the low-water mark
_ALIGNED_BYTES = 64 << 10  # pieces end at multiples of it: the page cache takes those for less
_LOOK_AGAIN_S = 0.05  # for what waited below the mark to be received, once the mark is gone
_ADDRESSES_MAX = 3


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


class Receiver(Protocol):
    """Takes one answer. What it raises (of ours) becomes the outcome of the request."""

    def begin(self, head: Head) -> int:
        """The head has come; how many bytes of body to expect."""

    def take(self, data: memoryview) -> None:
        """The next bytes of the body; the memory is overwritten after this."""


Done = Callable[[Exception | None], None]
"""Told once how a request ended: None, or what kept its answer from being whole."""


class Connection(asyncio.BufferedProtocol):
    """See the module. Callbacks come from the transport, `send` and `exchange` from the engine."""

    def __init__(self, timeouts: Timeouts, shared: memoryview | None = None) -> None:
        """Not connected yet.

        Args:
            timeouts: how long to wait.
            shared: of `shared_buffer`, for large bodies; None: they are gathered like small ones.
        """
        self.reusable = True
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._read_s = timeouts.read_s
        self._buffer = bytearray(BUFFER_BYTES)
        self._own = self._view = memoryview(self._buffer)
        self._shared = shared
        self._large = False  # the body goes through the shared buffer
        self._low_water = 1  # how much has to be there before the kernel wakes us up
        self._start = self._filled = 0  # [start, filled) of the buffer is not yet handed on
        self._used = False
        self._transport: asyncio.WriteTransport
        self._receiver: Receiver | None = None  # None: nothing is awaited
        self._done: Done
        self._remaining = -1  # bytes of body not yet handed on; negative: the head has not come
        self._progress_at = self._deadline = 0.0
        # Armed by a request that finds none, and left to find out what it is for when it fires: arming
        # one for each request would cost a small object a tenth of its price.
        self._timer: asyncio.TimerHandle | None = None

    def send(self, request: bytes, receiver: Receiver, limit_s: float, done: Done) -> None:
        """Send a request; `done` is told when its receiver has had the whole answer, or why not.

        It is told of StaleConnection (the connection had been used before, and was closed in between),
        Transient (it broke, or is too slow, or does not speak HTTP), or what the receiver raised.
        """
        self._start = self._filled = 0
        self._remaining = -1
        self._receiver = receiver
        self._done = done
        now = self._progress_at = self._loop.time()
        self._deadline = now + limit_s
        due = min(now + self._read_s, self._deadline)
        if self._timer is not None and self._timer.when() > due:
            self._timer.cancel()  # armed by one that had more time
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._check_time)
        self._transport.write(request)

    async def exchange(self, request: bytes, receiver: Receiver, limit_s: float) -> None:
        """`send`, awaited: raises what `done` would be told."""
        waiter: asyncio.Future[None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if waiter.done():  # cancelled
                return
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

        self.send(request, receiver, limit_s, done)
        try:
            await waiter
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up at once."""
        self.reusable = False
        self._receiver = None
        self._transport.abort()

    # -- called by the transport -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclasses

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the next bytes go."""
        if self._view is not self._own:  # other connections have used it since
            self._view[: self._filled] = self._own[: self._filled]
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        receiver = self._receiver
        if receiver is None:  # nobody asked: the other side is out of step
            self.close()
            return
        self._filled += nbytes
        self._progress_at = self._loop.time()
        try:
            if self._remaining >= 0 or self._head_came(receiver):
                self._hand_on(receiver)
        except MalformedResponse as error:
            self._finish(Transient(str(error)))
        except (Transient, Unexpected, HotshardError, TargetFailed) as error:
            self._finish(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever closed it."""
        self.reusable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._receiver is None:
            return
        if self._used and not self._filled and self._remaining < 0:
            self._finish(StaleConnection())
        else:
            begun = self._filled or self._remaining >= 0
            where = "in the middle of an answer" if begun else "without an answer"
            self._finish(Transient(f"the connection was closed {where}{f': {exc}' if exc else ''}"))

    # -- an answer -------------------------------------------------------------------------------

    def _head_came(self, receiver: Receiver) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, min(self._filled, HEAD_BYTES_MAX))
        if end < 0:
            if self._filled >= HEAD_BYTES_MAX:
                raise Transient(f"no end of the headers within {HEAD_BYTES_MAX} bytes")
            return False
        head = parse_head(bytes(self._view[:end]))
        self._start = end + 4
        self._used = True
        self.reusable = head.persistent
        self._remaining = receiver.begin(head)
        self._large = self._shared is not None and self._remaining >= _LARGE_BYTES
        return True

    def _hand_on(self, receiver: Receiver) -> None:
        have = min(self._filled - self._start, self._remaining)
        if have < self._remaining:
            if self._large:
                have -= have % _ALIGNED_BYTES
            elif self._filled < BUFFER_BYTES:
                return  # few and large writes are cheaper
        if have:
            receiver.take(self._view[self._start : self._start + have])
        self._remaining -= have
        rest = self._view[self._start + have : self._filled]
        self._start, self._filled = 0, len(rest)
        if not self._remaining:
            if rest:
                self.reusable = False  # it said more than it announced
            self._await(1)  # any byte of the next answer
            self._view = self._own
            self._finish(None)
        elif self._large and self._shared is not None:
            self._own[: len(rest)] = rest
            self._view = self._shared
            self._await(min(_LOW_WATER_BYTES, self._remaining - self._filled))

    def _await(self, size: int) -> None:
        """Have the kernel wake us up for no less than this, unless the other side closes.

        For less where that much would fill the receive window, which stops the sender until we have
        woken up: a new connection over a round trip of 20 ms took four times as long for 8 MiB.
        """
        if size == self._low_water:
            return
        sock = self._transport.get_extra_info("socket")
        if size > self._low_water:
            room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            size = max(1, min(size, room // _PIECES_IN_WINDOW))
        if size != self._low_water:
            self._low_water = size
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _finish(self, error: Exception | None) -> None:
        self._receiver = None
        if error is not None:
            self.close()
        self._done(error)

    def _check_time(self) -> None:
        self._timer = None
        if self._receiver is None:
            return
        now = self._loop.time()
        due = min(self._progress_at + self._read_s, self._deadline)
        if now < due:
            self._timer = self._loop.call_at(due, self._check_time)
        elif now < self._deadline and self._low_water > 1:
            self._await(1)  # something may have come, and been too little
            self._timer = self._loop.call_later(_LOOK_AGAIN_S, self._check_time)
        elif now < self._deadline:
            self._finish(Transient(f"nothing came for {self._read_s:g} s"))
        else:
            self._finish(Transient("the answer comes too slowly"))


def shared_buffer() -> memoryview:
    """What the connections of one thread receive large bodies into."""
    return memoryview(mmap.mmap(-1, SHARED_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


async def connect(
    endpoint: Endpoint, timeouts: Timeouts, shared: memoryview | None = None
) -> Connection:
    """A new connection, to any of the host's addresses: S3 gives several, to spread the load.

    Args:
        endpoint: where to.
        timeouts: how long to wait.
        shared: of `shared_buffer`; not used over TLS, whose records hide how much is still to come.

    Raises:
        Transient: nobody answers there.
        OriginUnavailable: the certificate cannot be trusted; no use in trying again.
    """
    try:
        async with asyncio.timeout(timeouts.connect_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )
        addresses = {str(address[0]) for *_, address in found}
        shared = None if endpoint.tls else shared
        return await _connect_any(
            sorted(addresses), endpoint, lambda: Connection(timeouts, shared), timeouts.connect_s
        )
    except ssl.SSLCertVerificationError as error:
        raise OriginUnavailable(
            f"the certificate of {endpoint.host} cannot be trusted ({error.verify_message});"
            " set AWS_CA_BUNDLE to the certificate of its authority"
        ) from error
    except OSError as error:
        raise Transient(f"cannot connect to {endpoint.authority}: {error}") from error


async def _connect_any(
    addresses: list[str], endpoint: Endpoint, make: Callable[[], Connection], limit_s: float
) -> Connection:
    chosen = random.sample(addresses, min(len(addresses), _ADDRESSES_MAX))
    for number, address in enumerate(chosen, 1):
        try:
            async with asyncio.timeout(limit_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    make,
                    address,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.host if endpoint.tls else None,
                )
                return connection
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            if number == len(chosen):
                raise
    raise OSError(f"{endpoint.host} has no address")

"""The bulk port: connections, deadlines and bytes. What to answer is bulk_calls.py's business.

A connection is a task on the loop while it waits for a request or for the cache, which costs nothing; a
thread of a bounded pool while payload goes out, by `sendfile` (with TLS: read, encrypted and sent by the
loop in small pieces). Requests on one connection are answered in order, so they may be sent ahead.

Whoever sends what is no request, or takes no bytes for too long, is told why where that is possible,
counted, and cut off. A request whose answer takes long gets signs of life (PENDING), by which the other
side tells a slow origin from a dead member.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
import time
from dataclasses import replace
from functools import partial
from typing import Protocol

from cache_server.cluster.bulk_calls import Answer, Part
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import Transfer, in_thread
from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Algorithm, running
from hotshard.core.errors import ConfigError, Overloaded

log = logging.getLogger(__name__)

THREADS = 16
CONNECTIONS_MAX = 1024
QUEUE_MAX = 256
"""Answers that may wait for a thread; beyond it the port is overloaded."""
RETRY_AFTER_S = 0.2
IDLE_S = 120.0
REQUEST_S = 10.0
"""For the rest of a request, once it has begun."""
PENDING_S = 0.5
SEND_S = 10.0
SEND_BYTES_PER_S = 1 << 20
_PIECE = 256 << 10
_SENDFILE_MAX = 4 << 20
_TIMEVAL = struct.Struct("@ll")


class Calls(Protocol):
    """Who knows the answers."""

    def answer_now(self, request: wire.Request) -> Answer | None:
        """The answer to a request, if it takes no waiting; None: ask `answer`."""

    async def answer(self, request: wire.Request) -> Answer:
        """The answer to a request."""


class BulkEvents(Protocol):
    """Who counts."""

    def bulk_served(self, outcome: str, size: int, *, not_owned: bool) -> None:
        """A request was answered."""

    def bulk_refused(self, reason: str) -> None:
        """A connection was cut off."""

    def bulk_connections(self, count: int) -> None:
        """So many are connected."""


class _Line(Protocol):
    async def read(self, count: int) -> bytes: ...
    async def send(self, answer: Answer) -> None: ...
    def close(self) -> None: ...


class _TooSlow(Exception):
    """The other side takes too long."""


class BulkServer:
    """One listening bulk port."""

    def __init__(
        self,
        host: str,
        port: int,
        calls: Calls,
        events: BulkEvents,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self._host = host
        self._calls = calls
        self._events = events
        self._tls = tls
        self._pool = Threads(THREADS, "bulk")
        self._listener: socket.socket | None = None
        self._lines: dict[_Line, bool] = {}  # whether a request is under way
        self._quiet = asyncio.Event()  # set whenever a request ends
        self._sending = 0
        self._stopping = False

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address is not to be had.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self.port), family=family, backlog=512)
        except OSError as error:
            where = f"{self._host}:{self.port}"
            raise ConfigError(
                [f"bulk.listen: cannot listen on {where}: {error.strerror}"]
            ) from error
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        self.port = listener.getsockname()[1]
        self._listener = listener

    async def run(self) -> None:
        """Serve until cancelled, or closed."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while self._listener is not None:
                try:
                    sock, _ = await loop.sock_accept(self._listener)
                except OSError as error:  # out of descriptors, or closed
                    log.warning("bulk port: accept failed: %s", error)
                    await asyncio.sleep(0.1)
                    continue
                group.create_task(self._serve(sock))

    async def close(self, grace_s: float) -> None:
        """Take no new requests, let those under way end; idempotent."""
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while any(self._lines.values()):
                    self._quiet.clear()
                    await self._quiet.wait()
        for line in list(self._lines):
            line.close()
        self._pool.close()

    async def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        reason = ""
        try:
            line = await self._line(sock)
        except (OSError, TimeoutError) as error:
            log.debug("bulk port: no connection was made: %s", error)
            self._events.bulk_refused("handshake")
            sock.close()
            return
        self._lines[line] = False
        self._events.bulk_connections(len(self._lines))
        try:
            if len(self._lines) > CONNECTIONS_MAX:
                full = Overloaded("too many connections", retry_after_s=RETRY_AFTER_S)
                await line.send(Answer(wire.refusal(0, full)))
                reason = "connections"
            else:
                await self._converse(line)
        except wire.Malformed as error:
            reason = "malformed"
            reply = wire.Reply(status=wire.Status.MALFORMED, request_id=0, text=str(error))
            with contextlib.suppress(OSError, _TooSlow):
                await line.send(Answer(reply))
        except (_TooSlow, TimeoutError):
            reason = "slow"
        except (OSError, EOFError):
            pass  # it went away
        except Exception:  # the top loop of a connection
            log.exception("bulk port: a connection failed")
            reason = "internal"
        finally:
            del self._lines[line]
            self._quiet.set()
            self._events.bulk_connections(len(self._lines))
            line.close()
            if reason:
                self._events.bulk_refused(reason)

    async def _line(self, sock: socket.socket) -> _Line:
        if self._tls is None:
            return _PlainLine(sock, self._pool)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        async with asyncio.timeout(REQUEST_S):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        return _TlsLine(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _converse(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            async with asyncio.timeout(IDLE_S) as limit:
                first = await line.read(1)
                if not first:
                    return
                self._lines[line] = True
                limit.reschedule(loop.time() + REQUEST_S)
                head = first + await line.read(wire.REQUEST_HEAD_BYTES - 1)
                request = wire.decode_request(head, await line.read(wire.request_rest(head)))
            answer = self._answer_now(request) or await self._answer(line, request)
            await line.send(answer)
            self._count(answer.reply)
            self._lines[line] = False
            self._quiet.set()

    def _count(self, reply: wire.Reply) -> None:
        not_owned = bool(reply.flags & wire.ReplyFlag.NOT_OWNER)
        self._events.bulk_served(reply.status.name.lower(), reply.length, not_owned=not_owned)

    def _answer_now(self, request: wire.Request) -> Answer | None:
        return self._calls.answer_now(request) if self._sending < QUEUE_MAX else None

    async def _answer(self, line: _Line, request: wire.Request) -> Answer:
        if self._sending >= QUEUE_MAX:
            error = Overloaded(
                f"{QUEUE_MAX} requests are under way on the bulk port", retry_after_s=RETRY_AFTER_S
            )
            return Answer(wire.refusal(request.request_id, error))
        self._sending += 1
        pending = wire.Reply(status=wire.Status.PENDING, request_id=request.request_id)
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._calls.answer(request))
                while not (await asyncio.wait([task], timeout=PENDING_S))[0]:
                    try:
                        await line.send(Answer(pending))
                    except BaseException:
                        task.cancel()
                        raise
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._sending -= 1
        return task.result()


class _PlainLine:
    """A plain TCP connection: the loop reads, a thread sends."""

    def __init__(self, sock: socket.socket, pool: Threads) -> None:
        self._sock = sock
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()

    async def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self._loop.sock_recv(self._sock, 8192)
            if not data:
                if count == 1:
                    return b""
                raise EOFError
            self._buffer += data
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    async def send(self, answer: Answer) -> None:
        if not answer.parts:
            async with asyncio.timeout(SEND_S):
                await self._loop.sock_sendall(self._sock, wire.encode_reply(answer.reply))
            return
        transfer = Transfer()
        transfer.attach(self._sock)
        await in_thread(self._pool, partial(_send, self._sock, answer), transfer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class _TlsLine:
    """A TLS connection, all of it on the loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, count: int) -> bytes:
        if count == 1:
            return await self._reader.read(1)
        return await self._reader.readexactly(count)

    async def send(self, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(None, _with_sums, answer)
        async with asyncio.timeout(SEND_S + reply.length / SEND_BYTES_PER_S):
            self._writer.write(wire.encode_reply(reply))
            for part in answer.parts:
                offset, stop = part.offset, part.offset + part.length
                while offset < stop:
                    data = await loop.run_in_executor(
                        None, _pread, part, min(_PIECE, stop - offset), offset
                    )
                    if not data:
                        raise OSError(f"the cached file ends at {offset}")
                    offset += len(data)
                    self._writer.write(data)
                    await self._writer.drain()
            await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()


def _send(sock: socket.socket, answer: Answer) -> None:
    """Send head and payload; in a thread, which blocks in the kernel.

    Waking up for every free piece of the socket's buffer would cost more than the copying.

    Raises:
        _TooSlow: the other side does not take it in time.
        OSError: the connection broke, or the file cannot be read.
    """
    reply = _with_sums(answer)
    deadline_s = time.monotonic() + SEND_S + reply.length / SEND_BYTES_PER_S
    sock.setblocking(True)  # noqa: FBT003
    try:
        _arm(sock, deadline_s)
        sock.sendall(wire.encode_reply(reply), socket.MSG_MORE)
        for part in answer.parts:
            offset, stop = part.offset, part.offset + part.length
            while offset < stop:
                size = min(stop - offset, _SENDFILE_MAX)
                count = os.sendfile(sock.fileno(), part.file.fd, offset, size)
                if not count:
                    raise OSError(f"the cached file ends at {offset}")
                offset += count
                _arm(sock, deadline_s)
    except BlockingIOError as error:
        raise _TooSlow from error
    finally:
        sock.setblocking(False)  # noqa: FBT003


def _arm(sock: socket.socket, deadline_s: float) -> None:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise _TooSlow
    seconds, microseconds = divmod(int(left_s * 1e6) + 1, 1_000_000)
    limit = _TIMEVAL.pack(seconds, microseconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _with_sums(answer: Answer) -> wire.Reply:
    """The reply with a checksum of its payload, if a member needs one and there is none."""
    reply = answer.reply
    if not answer.sum_payload or reply.sums:
        return reply
    total = running(Algorithm.XXH3_64)
    for part in answer.parts:
        offset, stop = part.offset, part.offset + part.length
        while offset < stop:
            data = _pread(part, min(_PIECE, stop - offset), offset)
            if not data:
                raise OSError(f"the cached file ends at {offset}")
            total.update(data)
            offset += len(data)
    return replace(
        reply, algorithm=Algorithm.XXH3_64, block_bytes=reply.length, sums=(total.value(),)
    )


def _pread(part: Part, count: int, offset: int) -> bytes:
    return os.pread(part.file.fd, count, offset)

"""Blocks from one member over its bulk port: a few kept connections, and a thread while bytes arrive.

Large blocks go straight into the target file, summed as they pass; small ones are received whole, checked,
and written once, so that two attempts at the same block (a hedge) never write over each other. Either way
nobody is told of a block before its checksum was right.
"""

import os
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from cache_server.core.patience import Patience
from cache_server.origins.origin import Fetched, Target, Want
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import Aborted, TargetFailed, Transfer, in_thread
from cache_server.scope import current_id, new_id
from hotshard.bulkline import BulkLine, Foreign, LineBroken
from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Algorithm, Checksum, running

SMALL_BYTES = 1 << 20
"""Up to this size a block is received before it is written."""
ATTEMPT_S = 2.0
ATTEMPT_BYTES_PER_S = 10 << 20
CONNECT_S = 1.0
IDLE_S = 60.0  # less than the server keeps them
TICKET_S = 60.0


class Refused(Exception):
    """The member answered, and the answer is no."""

    def __init__(self, reply: wire.Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Unreachable(Exception):
    """No connection to the bulk port could be made, or another program is there."""


class Mismatch(Exception):
    """The bytes that came do not have the checksum that came with them."""


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """What all connections of a node have in common."""

    cluster: str = ""
    secret: bytes = field(default=b"", repr=False)
    tls: ssl.SSLContext | None = None


class Landing:
    """Where a block goes when several attempts may bring it: the first one that is right writes it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._taken = False

    def claim(self) -> bool:
        """Whether the caller is the first."""
        with self._lock:
            first, self._taken = not self._taken, True
        return first


class _Sums:
    """The checksum that the block came with, and the one that its shard keeps; usually the same."""

    __slots__ = ("_carried", "_kept")

    def __init__(self, kept: Algorithm, carried: Algorithm | None) -> None:
        self._kept = running(kept)
        self._carried = running(carried) if carried not in {None, kept} else self._kept

    def update(self, piece: memoryview) -> None:
        self._kept.update(piece)
        if self._carried is not self._kept:
            self._carried.update(piece)

    def checked(self, reply: wire.Reply) -> int:
        """The one to keep.

        Raises:
            Mismatch: the other one is wrong.
        """
        if reply.sums and self._carried.value() != reply.sums[0]:
            raise Mismatch(f"a block of {reply.length} bytes does not match its checksum")
        return self._kept.value()


def attempt_s(length: int) -> float:
    """How long an attempt at so many bytes may take, when attempts take no time to speak of."""
    return ATTEMPT_S + length / ATTEMPT_BYTES_PER_S


class BulkClient:
    """The connections to one member."""

    def __init__(
        self,
        address: str,
        options: BulkOptions,
        pool: Threads,
        patience: Patience | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._options = options
        self._pool = pool
        self._patience = patience or Patience()
        self._cluster = wire.cluster_id(options.cluster)
        self._idle: deque[BulkLine] = deque()
        self._lock = threading.Lock()
        self._closed = False

    async def read(self, want: Want, landing: Landing, flags: wire.Flag, view: int) -> Fetched:
        """Receive a block.

        Raises:
            Refused: see its reply.
            LineBroken: no, or no good, or no timely answer.
            Mismatch: a bad block.
            TargetFailed: the target could not be written.
        """
        request = self._request(want, flags, view)
        transfer, usual_s = Transfer(), attempt_s(want.length)
        limit_s = usual_s * self._patience.factor
        work = partial(self._read, request, want, landing, transfer, limit_s)
        fetched, waited_s = await in_thread(self._pool, work, transfer)
        self._patience.took(waited_s / usual_s)
        return fetched

    async def whole(self, want: Want, view: int) -> Checksum | None:
        """The origin's checksum of the whole object, as the member knows it.

        Raises:
            Refused, LineBroken: see `read`.
        """
        request = self._request(want, wire.Flag.FORWARDED, view, wire.Kind.WHOLE)
        transfer = Transfer()
        limit_s = attempt_s(0) * self._patience.factor
        work = partial(self._whole, request, transfer, limit_s)
        return await in_thread(self._pool, work, transfer)

    def close(self) -> None:
        """Close the idle connections; the others close when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for line in idle:
            line.close()

    def _request(
        self, want: Want, flags: wire.Flag, view: int, kind: wire.Kind = wire.Kind.READ
    ) -> wire.Request:
        info = want.info
        request = wire.Request(
            kind=kind,
            flags=flags,
            cluster=self._cluster,
            view=view,
            request_id=int(current_id() or new_id(), 16),
            uri=info.uri,
            version=info.version,
            offset=want.offset,
            length=want.length,
            size=info.size,
            mtime_ns=info.mtime_ns,
        )
        if self._options.secret:
            expires = int(time.time() + TICKET_S)
            request = wire.signed(request, self._options.secret, expires)
        return request

    # -- in a thread -------------------------------------------------------------------------------

    def _read(
        self,
        request: wire.Request,
        want: Want,
        landing: Landing,
        transfer: Transfer,
        limit_s: float,
    ) -> tuple[Fetched, float]:
        """The block, and how long the member kept us waiting."""
        line, reply = self._exchange(request, transfer, limit_s)
        healthy = False
        try:
            _check(reply, want)
            # A block that is all of its object may keep the checksum it came with; any other needs the
            # one that the rest of its shard has.
            entire = want.length == want.info.size
            algorithm = reply.algorithm if entire and reply.algorithm else want.algorithm
            sums = _Sums(algorithm, reply.algorithm)
            if want.length <= SMALL_BYTES:
                value = _receive_small(line, reply, sums, landing, limit_s)
            else:
                value = _receive_large(line, reply, sums, landing, transfer, limit_s)
            waited_s, healthy = line.waited_s, True
        finally:
            self._put_back(line, healthy=healthy)
        return Fetched(value, algorithm), waited_s

    def _whole(self, request: wire.Request, transfer: Transfer, limit_s: float) -> Checksum | None:
        line, reply = self._exchange(request, transfer, limit_s)
        self._put_back(line, healthy=True)
        if reply.algorithm is None or not reply.sums:
            return None
        return Checksum(reply.algorithm, reply.sums[0])

    def _exchange(
        self, request: wire.Request, transfer: Transfer, limit_s: float
    ) -> tuple[BulkLine, wire.Reply]:
        try:
            line, reply = self._exchange_on(self._take(), request, transfer, limit_s)
        except Foreign as error:
            raise Unreachable(str(error)) from error
        except LineBroken as error:
            if not error.stale:
                raise
            line, reply = self._exchange_on(self._connect(), request, transfer, limit_s)
        if reply.status is not wire.Status.OK:
            closing = {wire.Status.MALFORMED} if reply.request_id else {reply.status}
            self._put_back(line, healthy=reply.status not in closing)
            raise Refused(reply)
        return line, reply

    def _exchange_on(
        self, line: BulkLine, request: wire.Request, transfer: Transfer, limit_s: float
    ) -> tuple[BulkLine, wire.Reply]:
        try:
            transfer.attach(line.sock)
            return line, line.exchange(request, limit_s)
        except BaseException:
            line.close()
            raise

    def _take(self) -> BulkLine:
        while True:
            with self._lock:
                if not self._idle:
                    break
                line = self._idle.pop()  # the newest: its buffer is the warmest
            if time.monotonic() - line.idle_since < IDLE_S:
                return line
            line.close()
        return self._connect()

    def _connect(self) -> BulkLine:
        try:
            return BulkLine(self._host, self._port, connect_s=CONNECT_S, tls=self._options.tls)
        except LineBroken as error:
            raise Unreachable(str(error)) from error

    def _put_back(self, line: BulkLine, *, healthy: bool) -> None:
        line.idle_since = time.monotonic()
        with self._lock:
            if healthy and not self._closed:
                self._idle.append(line)
                return
        line.close()


def _check(reply: wire.Reply, want: Want) -> None:
    if (reply.offset, reply.length, reply.text) != (want.offset, want.length, want.info.version):
        raise LineBroken(
            f"{reply.length} bytes at {reply.offset} of version {reply.text[:80]!r} came instead of"
            f" {want.length} at {want.offset} of {want.info.version[:80]!r}"
        )
    if len(reply.sums) > 1:
        raise LineBroken(f"{len(reply.sums)} checksums for one block")


def _receive_small(
    line: BulkLine, reply: wire.Reply, sums: _Sums, landing: Landing, limit_s: float
) -> int:
    """Receive, check, write."""
    data = bytearray(reply.length)
    view, at = memoryview(data), 0

    def sink(piece: memoryview) -> None:
        nonlocal at
        view[at : at + len(piece)] = piece
        at += len(piece)

    line.payload(reply.length, sink, limit_s)
    sums.update(view)
    value = sums.checked(reply)
    if landing.claim():
        _write(landing.target, view, 0)
    return value


def _receive_large(
    line: BulkLine,
    reply: wire.Reply,
    sums: _Sums,
    landing: Landing,
    transfer: Transfer,
    limit_s: float,
) -> int:
    """Write as it comes; nobody reads the place before it has been checked."""
    at = 0

    def sink(piece: memoryview) -> None:
        nonlocal at
        if transfer.aborted:
            raise Aborted
        sums.update(piece)
        _write(landing.target, piece, at)
        at += len(piece)

    line.payload(reply.length, sink, limit_s)
    return sums.checked(reply)


def _write(target: Target, data: memoryview, at: int) -> None:
    offset = target.file_offset + at
    try:
        while data:
            written = os.pwrite(target.fd, data, offset)
            offset += written
            data = data[written:]
    except OSError as error:
        raise TargetFailed(error) from error

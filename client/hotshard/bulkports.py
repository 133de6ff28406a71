"""Bytes from the bulk ports of those who own them, for clients without a server on their own node.

`Locate` (gRPC) says who owns the shards of an object, and gives a ticket; the bytes then come straight from
an owner's bulk port into the caller's buffer, without gRPC in between. It is a short way and no other
answer: whatever is in the way of it, the same bytes are asked for over gRPC (remote.py), and a port that
cannot be used is left alone for a while.

Connections are kept, a few for each member, for use by any thread; a forked child makes its own.
"""

import os
import ssl
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import count

from hotshard.bulkline import BulkLine, LineBroken
from hotshard.calls import Fetch, Fetched
from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import Overloaded
from hotshard.core.objects import ObjectInfo
from hotshard.options import Options
from hotshard.v1 import cache_pb2 as pb
from hotshard.wire import info_from_pb

LEAST_BYTES = 64 << 10
"""Below this it is not worth another question."""
LOCATIONS_MAX = 1024
LOCATED_S = 60.0
LINES_MAX = 8
"""Idle connections to one port."""
IDLE_S = 60.0
CONNECT_S = 1.0
QUIET_S = 5.0
"""For an answer, or a sign of life."""
PAYLOAD_S = 10.0
PAYLOAD_BYTES_PER_S = 1 << 20
AVOIDED_S = 30.0
"""How long a port is left alone that could not be used."""

_request_ids = count(1)


class NoWay(Exception):
    """The bytes do not come this way: use gRPC."""


@dataclass(frozen=True, slots=True)
class _Shard:
    start: int
    stop: int
    ports: tuple[str, ...]
    """host:port, the first owner's first."""


@dataclass(frozen=True, slots=True)
class Location:
    """Who owns the parts of one object version, for a while."""

    info: ObjectInfo
    cluster: int
    shards: tuple[_Shard, ...]
    ticket: bytes
    expires: int
    good_until: float
    """By the monotonic clock."""

    def shard(self, offset: int) -> _Shard | None:
        """The shard with a byte, if anybody with a bulk port owns it."""
        for shard in self.shards:
            if shard.start <= offset < shard.stop:
                return shard if shard.ports else None
        return None


def location_from_pb(reply: pb.LocateReply) -> Location:
    """What an answer to Locate says."""
    ports = {member.id: member.bulk for member in reply.members}
    left_s = reply.ticket_expires - time.time() - QUIET_S if reply.ticket_expires else LOCATED_S
    return Location(
        info_from_pb(reply.object),
        wire.cluster_id(reply.cluster),
        tuple(
            _Shard(
                shard.offset,
                shard.offset + shard.size_bytes,
                tuple(port for id_ in shard.owners if (port := ports.get(id_))),
            )
            for shard in reply.shards
        ),
        reply.ticket or bytes(wire.TICKET_BYTES),
        reply.ticket_expires,
        time.monotonic() + min(left_s, LOCATED_S),
    )


class Attempt:
    """One Fetch on its way; may be given up from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: BulkLine | None = None
        self._over = False

    def use(self, line: BulkLine | None) -> None:
        """What is waited on now."""
        with self._lock:
            self._line = line
            if self._over and line is not None:
                line.abort()

    def give_up(self) -> None:
        """Wake the thread up; nothing more is written to the caller's buffer after it has ended."""
        with self._lock:
            self._over = True
            if self._line is not None:
                self._line.abort()

    @property
    def over(self) -> bool:
        """Whether it was given up."""
        return self._over


class BulkPorts:
    """The bulk ports that one client reads from."""

    def __init__(self, options: Options) -> None:
        self._tls = _context(options)
        self._timeout_s = options.timeout_s
        self._useless_until = 0.0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._idle: dict[str, deque[BulkLine]] = {}
        self._avoided: dict[str, float] = {}
        self._locations: OrderedDict[tuple[str, str], Location] = OrderedDict()

    def worth_it(self, call: Fetch) -> bool:
        """Whether a Fetch should be tried this way."""
        return call.length >= LEAST_BYTES and time.monotonic() >= self._useless_until

    def known(self, call: Fetch) -> Location | None:
        """Where the bytes of a Fetch are, if it need not be asked: only of a version that is named."""
        with self._lock:
            found = self._locations.get((call.uri, call.version))
        return found if found is not None and time.monotonic() < found.good_until else None

    def learn(self, location: Location) -> None:
        """Remember where an object is."""
        if not any(shard.ports for shard in location.shards):
            self.useless()
            return
        with self._lock:
            key = location.info.uri, location.info.version
            self._locations[key] = location
            self._locations.move_to_end(key)
            if len(self._locations) > LOCATIONS_MAX:
                self._locations.popitem(last=False)

    def useless(self) -> None:
        """The server knows of no bulk ports: do not ask it again for a while."""
        self._useless_until = time.monotonic() + AVOIDED_S

    def fetch(self, call: Fetch, location: Location, attempt: Attempt) -> Fetched:
        """The bytes of a Fetch; blocking.

        Raises:
            NoWay: they do not come this way.
            Overloaded: a member says when to come back.
        """
        info = location.info
        wanted = max(0, min(call.length, info.size - call.offset))
        data = None if call.view is not None else bytearray(wanted)
        view = (call.view if data is None else memoryview(data))[:wanted]  # type: ignore[index]
        done, deadline = 0, time.monotonic() + self._timeout_s
        while done < wanted:
            if attempt.over or time.monotonic() > deadline:
                raise NoWay("there is no time left")
            offset = call.offset + done
            shard = location.shard(offset)
            if shard is None:
                raise NoWay(f"nobody with a bulk port owns byte {offset}")
            stop = min(wanted, done + shard.stop - offset, done + wire.LENGTH_MAX)
            done += self._from_owners(location, shard, offset, view[done:stop], attempt)
        return Fetched(info, b"" if data is None else bytes(data), wanted)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            self._close_idle()

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, {}
        for lines in idle.values():
            for line in lines:
                line.close()

    def _from_owners(
        self, location: Location, shard: _Shard, offset: int, view: memoryview, attempt: Attempt
    ) -> int:
        problem = "all of its owners are left alone"
        for port in shard.ports:
            if time.monotonic() < self._avoided.get(port, 0.0):
                continue
            try:
                return self._receive(location, port, offset, view, attempt)
            except LineBroken as error:
                problem = str(error)
                if not attempt.over:
                    self._avoided[port] = time.monotonic() + AVOIDED_S
        raise NoWay(problem)

    def _receive(
        self, location: Location, port: str, offset: int, view: memoryview, attempt: Attempt
    ) -> int:
        """The beginning of a range; how many bytes came."""
        info = location.info
        request = wire.Request(
            cluster=location.cluster,
            request_id=next(_request_ids),
            uri=info.uri,
            version=info.version,
            offset=offset,
            length=len(view),
            size=info.size,
            mtime_ns=info.mtime_ns,
            ticket=location.ticket,
            expires=location.expires,
        )
        line = self._take(port)
        healthy = False
        try:
            attempt.use(line)
            try:
                reply = line.exchange(request, QUIET_S)
            except LineBroken as error:
                if not error.stale:
                    raise
                line.close()
                line = self._connect(port)
                attempt.use(line)
                reply = line.exchange(request, QUIET_S)
            if reply.status is wire.Status.OK:
                came = self._payload(line, reply, request, view)
                healthy = True
                return came
            healthy = reply.request_id != 0
            if reply.status is wire.Status.OVERLOADED:
                raise Overloaded(
                    f"{port}: {reply.text}", uri=info.uri, retry_after_s=reply.retry_after_ms / 1e3
                )
            raise NoWay(f"{port}: {reply.status.name}: {reply.text}")
        finally:
            attempt.use(None)
            self._put_back(port, line, healthy=healthy and not attempt.over)

    def _payload(
        self, line: BulkLine, reply: wire.Reply, request: wire.Request, view: memoryview
    ) -> int:
        found = reply.offset, reply.text
        if found != (request.offset, request.version) or not 0 < reply.length <= len(view):
            raise LineBroken(f"{reply.length} bytes of {found} came instead of what was asked for")
        part = view[: reply.length]
        line.payload_into(part, PAYLOAD_S + reply.length / PAYLOAD_BYTES_PER_S)
        if reply.algorithm is Algorithm.XXH3_64 and reply.block_bytes:
            for number, value in enumerate(reply.sums):
                block = part[number * reply.block_bytes : (number + 1) * reply.block_bytes]
                if checksum(Algorithm.XXH3_64, block) != value:
                    raise LineBroken("a block came that does not match its checksum")
        return reply.length

    def _take(self, port: str) -> BulkLine:
        while True:
            with self._lock:
                if self._pid != os.getpid():  # the connections of our parent: its to use
                    self._pid = os.getpid()
                    self._close_idle()
                lines = self._idle.get(port)
                if not lines:
                    break
                line = lines.pop()
            if time.monotonic() - line.idle_since < IDLE_S:
                return line
            line.close()
        return self._connect(port)

    def _connect(self, port: str) -> BulkLine:
        host, _, number = port.rpartition(":")
        return BulkLine(host.strip("[]"), int(number), connect_s=CONNECT_S, tls=self._tls)

    def _put_back(self, port: str, line: BulkLine, *, healthy: bool) -> None:
        line.idle_since = time.monotonic()
        with self._lock:
            lines = self._idle.setdefault(port, deque())
            if healthy and len(lines) < LINES_MAX:
                lines.append(line)
                return
        line.close()


def _context(options: Options) -> ssl.SSLContext | None:
    """Members are known by their authority, not by their names: pods have neither for long."""
    if not options.tls:
        return None
    context = ssl.create_default_context(cafile=options.ca)
    context.check_hostname = False
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.key)
    return context

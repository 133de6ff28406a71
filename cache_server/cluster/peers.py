"""The members this node talks to: who may be asked now, how many requests run, what a failure means.

Per member: a few bulk connections shared by demand and prefetch (demand first), a gRPC channel, and a
circuit breaker for each of the two. Every way in which a member cannot help becomes one PeerFailed, after
which the caller asks the next one; only what the origin itself said (no such object, another version) is
final.

A member that answers, whatever it answers, is alive: only silence, broken connections, wrong bytes and
refusals of our membership count against it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from cache_server.cluster.bulk_client import (
    BulkClient,
    BulkOptions,
    Landing,
    Mismatch,
    Refused,
    Unreachable,
)
from cache_server.cluster.grpc_peer import Gone, GrpcOptions, GrpcPeer, NoAnswer
from cache_server.cluster.ports import PeerAddress, PeerEvents, Placement
from cache_server.core.breaker import Breaker
from cache_server.core.patience import Patience
from cache_server.origins.origin import Fetched, ListPage, Want
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import TargetFailed
from cache_server.scope import step
from cache_server.slots import FetchSlots
from cache_server.store.shard import ShardKey
from hotshard.bulkline import LineBroken, Unacknowledged
from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Checksum
from hotshard.core.errors import (
    BY_CODE,
    HotshardError,
    NotFound,
    Overloaded,
    StaleObject,
    code_name,
)
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import types_pb2

log = logging.getLogger(__name__)

THREADS = 32
CONNECTIONS = 4
OVERLOADED_TRIES = 3
OVERLOADED_WAIT_S_MAX = 1.0
BULK_AVOIDED_S = 10.0
"""For how long gRPC is used at once, after it worked where the bulk port did not."""
SILENCE = 2
"""Failures that a silent host counts as: its kernel would have answered, however busy the member is."""
FINAL = (NotFound, StaleObject)
_HOSTILE = {wire.Status.WRONG_CLUSTER, wire.Status.FORGED, wire.Status.MALFORMED}
T = TypeVar("T")


class PeerFailed(Exception):
    """This member cannot help; its `outcome` is counted."""

    def __init__(self, outcome: str, message: str = "") -> None:
        super().__init__(f"{outcome}: {message}" if message else outcome)
        self.outcome = outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """How members are asked."""

    bulk: BulkOptions = field(default_factory=BulkOptions)
    grpc: GrpcOptions = field(default_factory=GrpcOptions)
    connections: int = CONNECTIONS
    """Bulk requests in flight to one member."""


class _Link:
    """All that is kept of one member."""

    def __init__(
        self,
        peer: PeerAddress,
        options: PeerOptions,
        pool: Threads,
        patience: dict[str, Patience],
    ) -> None:
        self.peer = peer
        self.bulk = (
            BulkClient(peer.bulk, options.bulk, pool, patience["bulk"]) if peer.bulk else None
        )
        self.breakers = {path: Breaker() for path in ("bulk", "grpc")}
        self.slots = FetchSlots(options.connections, max(1, options.connections // 2))
        self.bulk_avoided_until = 0.0
        self._grpc_options = options.grpc
        self._grpc_patience = patience["grpc"]
        self._grpc: GrpcPeer | None = None

    @property
    def grpc(self) -> GrpcPeer:
        """Its channel, made when it is first needed.

        Raises:
            NoAnswer: it has no address for gRPC.
        """
        if not self.peer.grpc:
            raise NoAnswer("no gRPC address")
        if self._grpc is None:
            self._grpc = GrpcPeer(self.peer.grpc, self._grpc_options, self._grpc_patience)
        return self._grpc

    async def close(self) -> None:
        if self.bulk is not None:
            self.bulk.close()
        if self._grpc is not None:
            await self._grpc.close()


class Peers:
    """Asks members. Use from the event loop only."""

    def __init__(self, placement: Placement, options: PeerOptions, events: PeerEvents) -> None:
        self._placement = placement
        self._options = options
        self._events = events
        self._links: dict[str, _Link] = {}
        self._instances: Mapping[str, int] = {}
        self._pool = Threads(THREADS, "peer")
        self._patience = {path: Patience() for path in ("bulk", "grpc")}  # of this node with all

    async def close(self) -> None:
        """Give up all connections."""
        links, self._links = self._links, {}
        for link in links.values():
            await link.close()
        self._pool.close()

    async def retain(self, instances: Mapping[str, int]) -> None:
        """Forget the members that are not among these, and what we think of the former runs of the others.

        Who has been started again has not failed yet; what it has would be read from the origin.
        """
        before, self._instances = self._instances, dict(instances)
        for gone in self._links.keys() - instances.keys():
            link = self._links.pop(gone)
            self._events.peer_gone(gone, link.peer.zone)
            await link.close()
        for id_, instance in instances.items():
            if before.get(id_, instance) != instance and id_ in self._links:
                self._events.peer_breaker(id_, is_open=False)
                await self._links.pop(id_).close()

    async def block(
        self, peer: PeerAddress, want: Want, landing: Landing, flags: wire.Flag, *, demand: bool
    ) -> Fetched:
        """Receive a block from a member.

        Raises:
            PeerFailed: ask somebody else.
            NotFound, StaleObject: the origin's own words.
            OSError: the target could not be written.
        """
        link = self._link(peer)
        ticket = link.slots.ask(demand=demand)
        await link.slots.acquire(ticket)
        try:
            bulk = link.bulk
            if bulk is None or time.monotonic() < link.bulk_avoided_until:
                fetched = await self._over_grpc(link, want, landing, flags)
            else:
                fetched = await self._over_bulk(link, bulk, want, landing, flags)
        finally:
            link.slots.release(ticket)
        self._events.peer_received(peer.id, peer.zone, want.length)
        return fetched

    async def whole(self, peer: PeerAddress, info: ObjectInfo) -> Checksum | None:
        """The origin's checksum of a whole object; None also when the member cannot say."""
        link = self._link(peer)
        if link.bulk is None:
            return None
        want = Want(info, 0, 0)
        try:
            async with self._asking(link, "bulk"):
                return await link.bulk.whole(want, self._placement.view_version)
        except (PeerFailed, HotshardError):
            return None

    async def stat(self, peer: PeerAddress, uri: str) -> ObjectInfo:
        """Describe an object.

        Raises:
            PeerFailed: ask somebody else.
            NotFound: the origin's own words.
        """
        link = self._link(peer)
        async with self._asking(link, "grpc"):
            return await link.grpc.stat(uri, self._placement.view_version)

    async def status(self, peer: PeerAddress, timeout_s: float) -> types_pb2.StatusReply:
        """How a member is. Whether it answers that says nothing for or against it as a source of blocks.

        Raises:
            PeerFailed: it does not say.
        """
        try:
            return await self._link(peer).grpc.status(timeout_s)
        except (NoAnswer, HotshardError) as error:
            raise PeerFailed("no answer", str(error)) from error

    async def offer(
        self, peer: PeerAddress, shards: Sequence[ShardKey], limit_s: float
    ) -> tuple[int, int]:
        """Shards and bytes that a member took over of these; raises as `stat` does."""
        link = self._link(peer)
        async with self._asking(link, "grpc"):
            return await link.grpc.offer(shards, self._placement.view_version, limit_s)

    async def list_page(
        self, peer: PeerAddress, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of a listing; raises as `stat` does."""
        link = self._link(peer)
        async with self._asking(link, "grpc"):
            return await link.grpc.list_page(
                prefix,
                recursive=recursive,
                token=token,
                page_size=page_size,
                view=self._placement.view_version,
            )

    async def _over_bulk(
        self, link: _Link, bulk: BulkClient, want: Want, landing: Landing, flags: wire.Flag
    ) -> Fetched:
        view = self._placement.view_version

        async def once() -> Fetched:
            async with self._asking(link, "bulk"):
                return await bulk.read(want, landing, flags, view)

        try:
            return await _patiently(once)
        except _CannotConnect as failed:
            fetched = await self._over_grpc(link, want, landing, flags, failed)
            link.bulk_avoided_until = time.monotonic() + BULK_AVOIDED_S
            log.warning("bulk port of %s fails, gRPC works: %s", link.peer.id, failed)
            return fetched

    async def _over_grpc(
        self,
        link: _Link,
        want: Want,
        landing: Landing,
        flags: wire.Flag,
        failed: PeerFailed | None = None,
    ) -> Fetched:
        if flags & wire.Flag.ONLY_CACHED or not link.peer.grpc:
            raise failed or PeerFailed("not_cached", "gRPC cannot say")
        view = self._placement.view_version

        async def once() -> Fetched:
            async with self._asking(link, "grpc"):
                return await link.grpc.read(want, landing, view)

        return await _patiently(once)

    @asynccontextmanager
    async def _asking(self, link: _Link, path: str) -> AsyncIterator[None]:
        """Around one request: lets it through or not, draws the conclusions, counts."""
        began = time.monotonic()
        if not link.breakers[path].allows(began):
            self._events.peer_request(link.peer.id, path, "open", 0.0)
            raise PeerFailed("open")
        outcome, alive, silent = "cancelled", False, False
        try:
            with step("peer", path, peer=link.peer.id):
                yield
            outcome, alive = "ok", True
        except Refused as refused:
            failed = _meaning(refused.reply)
            outcome = (
                failed.outcome if isinstance(failed, PeerFailed) else code_name(failed).lower()
            )
            alive = refused.reply.status not in _HOSTILE
            raise failed from refused
        except HotshardError as error:  # over gRPC
            outcome, alive = code_name(error).lower(), True
            if isinstance(error, (*FINAL, Overloaded)):
                raise
            raise PeerFailed(outcome, str(error)) from error
        except Unreachable as error:
            outcome = "unreachable"
            raise _CannotConnect(outcome, str(error)) from error
        except (LineBroken, NoAnswer) as error:
            silent = isinstance(error, Unacknowledged | Gone)
            outcome = "unreachable" if silent else "broken"
            raise PeerFailed(outcome, str(error)) from error
        except Mismatch as error:
            outcome = "mismatch"
            log.warning("%s sent bytes that are wrong: %s", link.peer.id, error)
            raise PeerFailed(outcome, str(error)) from error
        except TargetFailed as error:
            outcome, alive = "target", True
            raise error.error from error
        finally:
            self._conclude(link, path, outcome, alive=alive, silent=silent)
            self._events.peer_request(link.peer.id, path, outcome, time.monotonic() - began)

    def _conclude(self, link: _Link, path: str, outcome: str, *, alive: bool, silent: bool) -> None:
        breaker, now = link.breakers[path], time.monotonic()
        before = breaker.state
        if alive:
            breaker.succeeded(now)
        elif outcome == "cancelled":
            breaker.cancelled(now)
        else:
            breaker.failed(now, SILENCE if silent else 1)
        if silent:
            self._placement.suspect(link.peer.id)
        if breaker.state != before:
            log.info("%s to %s: breaker %s (%s)", path, link.peer.id, breaker.state, outcome)
            is_open = any(each.state != "closed" for each in link.breakers.values())
            self._events.peer_breaker(link.peer.id, is_open=is_open)

    def _link(self, peer: PeerAddress) -> _Link:
        link = self._links.get(peer.id)
        if link is None or link.peer != peer:  # it has come back with another address
            if link is not None and link.bulk is not None:
                link.bulk.close()
            link = self._links[peer.id] = _Link(peer, self._options, self._pool, self._patience)
        return link


class _CannotConnect(PeerFailed):
    """Perhaps only the bulk port is closed."""


def _meaning(reply: wire.Reply) -> Exception:
    error = wire.error_of(reply, "")
    if isinstance(error, (*FINAL, Overloaded)) and reply.status.name in BY_CODE:
        return error
    if reply.status in _HOSTILE:
        log.warning("a member refuses us: %s: %s", reply.status.name, reply.text)
    return PeerFailed(reply.status.name.lower(), reply.text)


async def _patiently(once: Callable[[], Awaitable[T]]) -> T:
    """Come back to an overloaded member when it says, a few times."""
    for _ in range(OVERLOADED_TRIES - 1):
        try:
            return await once()
        except Overloaded as error:
            await asyncio.sleep(min(error.retry_after_s, OVERLOADED_WAIT_S_MAX))
    try:
        return await once()
    except Overloaded as error:
        raise PeerFailed("overloaded", str(error)) from error

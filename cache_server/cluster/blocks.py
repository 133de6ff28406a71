"""Blocks from other members: whom to ask, in which order.

    what another member owns  its owner (which has it, or fetches it: one flight for all who ask)
                              -> the next owners -> who owned it before the last change, if it has it
    what we own               who owned it before the last change, if it has it

and then the origin, which is not asked here. A wrong view, a dead or a lying member cost time and nothing
else. What a member has asked of us (`forwarded`) is never asked of a third one who would have to fetch it:
there are no loops.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from cache_server.cluster.bulk_client import SMALL_BYTES, Landing, attempt_s
from cache_server.cluster.peers import PeerFailed, Peers
from cache_server.cluster.ports import PeerAddress, PeerEvents, Placement
from cache_server.core.hedge import Hedge
from cache_server.origins.origin import Fetched, Target, Want
from hotshard.core import bulkwire as wire
from hotshard.core.blocks import Geometry, shard_digest
from hotshard.core.errors import NotFound, OriginUnavailable, StaleObject

log = logging.getLogger(__name__)

ORIGIN_S = 10.0
"""What the origin gets, beyond the time of an attempt at a peer, before it counts as away."""

Step = tuple[PeerAddress, wire.Flag]
Attempt = asyncio.Task[Fetched | Exception]


class ClusterBlocks:
    """Blocks from other members. Use from the event loop only."""

    def __init__(
        self, placement: Placement, peers: Peers, geometry: Geometry, events: PeerEvents
    ) -> None:
        self._placement = placement
        self._peers = peers
        self._geometry = geometry
        self._events = events
        self._hedge = Hedge()

    def digest(self, want: Want) -> bytes:
        """What names the shard of a block."""
        index = want.offset // self._geometry.shard_bytes
        return shard_digest(want.info.uri, want.info.version, index)

    def is_ours(self, digest: bytes) -> bool:
        """Whether this node is the first owner; in a cluster of nobody else, it is."""
        owners = self._placement.owners(digest)
        return not owners or owners[0].id == self._placement.me

    async def fetch(
        self, want: Want, target: Target, *, forwarded: bool, demand: bool
    ) -> Fetched | None:
        """See cache_server.origins.origin.PeerBlocks."""
        digest = self.digest(want)
        ours = self.is_ours(digest)
        steps = list(self._previous(digest) if forwarded or ours else self._plan(digest))
        found = await self._first(steps, want, target, demand=demand)
        if found is None and not ours and not forwarded:
            self._events.peers_exhausted()
        return found

    def nobody_first(self, digest: bytes) -> bool:
        """See cache_server.origins.origin.PeerBlocks."""
        return self.is_ours(digest) and next(self._previous(digest), None) is None

    async def helped(
        self, want: Want, target: Target, first: Callable[[], Coroutine[Any, Any, Fetched]]
    ) -> Fetched:
        """See cache_server.origins.origin.PeerBlocks."""
        try:
            return await first()
        except OriginUnavailable as error:
            found = None
            with contextlib.suppress(TimeoutError):  # whom we ask may wait for us, cut off as well
                async with asyncio.timeout(ORIGIN_S + attempt_s(want.length)):
                    found = await self._rescue(want, target)
            if found is None:
                raise
            log.warning("a peer helped: %s", error)
            return found

    async def _rescue(self, want: Want, target: Target) -> Fetched | None:
        """Our own block, from the next owners: our way to the origin is broken."""
        digest = self.digest(want)
        me = self._placement.me
        steps = [(p, wire.Flag.FORWARDED) for p in self._placement.owners(digest) if p.id != me]
        return await self._first(steps, want, target, demand=True)

    def _plan(self, digest: bytes) -> Iterator[Step]:
        """Whom to ask for what another member owns."""
        for peer in self._placement.owners(digest):
            if peer.id == self._placement.me:
                break  # those before us failed: now it is ours to fetch
            yield peer, wire.Flag.FORWARDED
        yield from self._previous(digest)

    def _previous(self, digest: bytes) -> Iterator[Step]:
        """Who may have it from before the last change."""
        owners = {peer.id for peer in self._placement.owners(digest)}
        for peer in self._placement.previous_owners(digest):
            if peer.id != self._placement.me and (peer.id not in owners or self.is_ours(digest)):
                yield peer, wire.Flag.ONLY_CACHED

    async def _first(
        self, steps: Sequence[Step], want: Want, target: Target, *, demand: bool
    ) -> Fetched | None:
        """From the first of these that gives it."""
        for number, (peer, flags) in enumerate(steps):
            landing = Landing(target)
            second = steps[number + 1][0] if number + 1 < len(steps) else None
            try:
                if demand and second is not None and want.length <= SMALL_BYTES:
                    return await self._hedged(peer, second, want, landing, flags)
                return await self._peers.block(peer, want, landing, flags, demand=demand)
            except PeerFailed as failed:
                log.debug("%s of %s: %s", want.info.uri, peer.id, failed)
        return None

    async def _hedged(
        self,
        peer: PeerAddress,
        second: PeerAddress,
        want: Want,
        landing: Landing,
        flags: wire.Flag,
    ) -> Fetched:
        """Ask; when that takes unusually long, ask the next owner as well whether it has it already.

        Only whether it has it: a second flight to the origin is not what a slow member is worth.
        """
        began = time.monotonic()
        delay_s = self._hedge.delay_s()
        self._hedge.asked()
        ask = self._peers.block(peer, want, landing, flags, demand=True)
        if delay_s is None:
            found = await ask
        else:
            found = await self._race(ask, second, want, landing, delay_s)
        self._hedge.answered(time.monotonic() - began)
        return found

    async def _race(
        self,
        ask: Coroutine[Any, Any, Fetched],
        second: PeerAddress,
        want: Want,
        landing: Landing,
        delay_s: float,
    ) -> Fetched:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_outcome(ask))
            await asyncio.wait([first], timeout=delay_s)
            if first.done() or not self._hedge.try_spend():
                found = await first
            else:
                only = wire.Flag.ONLY_CACHED
                ask_second = self._peers.block(second, want, landing, only, demand=True)
                other = group.create_task(_outcome(ask_second))
                found = await self._faster(first, other)
        if isinstance(found, Exception):  # not within the group, which would wrap it
            raise found
        return found

    async def _faster(self, first: Attempt, second: Attempt) -> Fetched | Exception:
        """What the first one gives, unless the second has it before."""
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        won = not first.done() and isinstance(second.result(), Fetched)
        self._events.peer_hedged(won=won)
        (first if won else second).cancel()
        if won:
            return second.result()
        return await first


async def _outcome(ask: Coroutine[Any, Any, Fetched]) -> Fetched | Exception:
    try:
        return await ask
    except (PeerFailed, NotFound, StaleObject, OSError) as error:
        return error

"""One origin, as a cluster reads it.

`GuardedOrigin` is the origin as this node reaches it: bounded in time, and given up on quickly once it
is known to be away, because other members may reach it. It is what members are answered from.

`ClusterOrigin` is what local readers are answered from. Descriptions and listings come from the owner of
the name, so that the origin sees one HEAD and one LIST for the whole cluster; blocks that are ours come
from the guarded origin; whatever fails there is asked of the next owners, and of the unguarded origin in
the end: the cluster never makes a read fail that would have succeeded without it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import xxhash

from cache_server.cluster.blocks import ORIGIN_S, ClusterBlocks
from cache_server.cluster.bulk_client import attempt_s
from cache_server.cluster.peers import PeerFailed, Peers
from cache_server.cluster.ports import PeerAddress, Placement
from cache_server.core.breaker import Breaker
from cache_server.flight import Flights, Spawn
from cache_server.origins.origin import Fetched, ListPage, Origin, Target, Want
from cache_server.recent import Recent
from hotshard.core.blocks import shard_digest
from hotshard.core.checksum import Checksum
from hotshard.core.errors import HotshardError, OriginUnavailable
from hotshard.core.objects import ObjectInfo

log = logging.getLogger(__name__)

DESCRIBE_S = 5.0
SILENCE = 2
"""Failures that a request counts as which the origin left without an answer for all that time."""
WHOLE_ENTRIES = 4096
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Whole:
    """What the origin said of an object's checksum; most origins have none for most objects."""

    checksum: Checksum | None


class GuardedOrigin:
    """The real origin; OriginUnavailable at once while it is known to be away.

    Our own readers and the members that hold us for the owner come here by separate ways (catalog.py), at
    one time; they share one request.
    """

    def __init__(self, inner: Origin, spawn: Spawn) -> None:
        self.prefix = inner.prefix
        self._inner = inner
        self._breaker = Breaker()
        self._stats: Flights[str, ObjectInfo] = Flights(spawn)
        self._pages: Flights[tuple[str, bool, str, int], ListPage] = Flights(spawn)
        self._wholes: Flights[tuple[str, str], Checksum | None] = Flights(spawn)
        self._whole: Recent[tuple[str, str], _Whole] = Recent(WHOLE_ENTRIES)

    async def stat(self, uri: str) -> ObjectInfo:
        """Describe one object."""

        async def ask() -> ObjectInfo:
            async with self._guard(uri, DESCRIBE_S):
                return await self._inner.stat(uri)

        return await self._stats.join(uri, ask)

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of a listing."""

        async def ask() -> ListPage:
            async with self._guard(prefix, ORIGIN_S):
                return await self._inner.list_page(
                    prefix, recursive=recursive, token=token, page_size=page_size
                )

        return await self._pages.join((prefix, recursive, token, page_size), ask)

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        """The origin's own checksum, remembered for the members that will ask for it too."""
        key = info.uri, info.version

        async def ask() -> Checksum | None:
            async with self._guard(info.uri, DESCRIBE_S):
                found = await self._inner.whole_checksum(info)
            self._whole.put(key, _Whole(found))
            return found

        known = self._whole.get(key)
        return known.checksum if known is not None else await self._wholes.join(key, ask)

    async def fetch(self, want: Want, target: Target) -> Fetched:
        """A block."""
        return await self.within_time(want, lambda: self._inner.fetch(want, target))

    async def within_time(
        self, want: Want, rest: Callable[[], Coroutine[Any, Any, Fetched]]
    ) -> Fetched:
        """A fetch, or the rest of one."""
        async with self._guard(want.info.uri, ORIGIN_S + attempt_s(want.length)):
            return await rest()

    @property
    def is_well(self) -> bool:
        """Whether nothing speaks against asking the origin."""
        return self._breaker.state == "closed"

    def answered(self) -> None:
        """The origin has answered somebody who did not ask through here."""
        self._breaker.succeeded(time.monotonic())

    async def close(self) -> None:
        """Nothing of its own to close: whoever opened the real origin closes it."""

    @asynccontextmanager
    async def _guard(self, uri: str, limit_s: float) -> AsyncIterator[None]:
        if not self._breaker.allows(time.monotonic()):
            raise OriginUnavailable(f"the origin of {uri} is away", uri=uri)
        away: bool | None = None
        weight = 1
        try:
            async with asyncio.timeout(limit_s):
                yield
            away = False
        except TimeoutError as error:
            away, weight = True, SILENCE
            raise OriginUnavailable(f"the origin of {uri} takes too long", uri=uri) from error
        except HotshardError as error:
            away = isinstance(error, OriginUnavailable)
            raise
        finally:
            now = time.monotonic()
            if away is None:
                self._breaker.cancelled(now)
            elif away:
                self._breaker.failed(now, weight)
            else:
                self._breaker.succeeded(now)


class ClusterOrigin:
    """An origin behind the members of the cluster. Use from the event loop only."""

    def __init__(
        self,
        inner: Origin,
        guarded: GuardedOrigin,
        placement: Placement,
        peers: Peers,
        blocks: ClusterBlocks,
    ) -> None:
        self.prefix = inner.prefix
        self._inner = inner
        self._guarded = guarded
        self._placement = placement
        self._peers = peers
        self._blocks = blocks

    async def stat(self, uri: str) -> ObjectInfo:
        """Describe one object: one request to the origin for all members."""
        return await self._asked(
            uri,
            lambda peer: self._peers.stat(peer, uri),
            lambda: self._guarded.stat(uri),
            lambda: self._inner.stat(uri),
        )

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of a listing: likewise."""

        def page_of(origin: Origin) -> Awaitable[ListPage]:
            return origin.list_page(prefix, recursive=recursive, token=token, page_size=page_size)

        return await self._asked(
            prefix,
            lambda peer: self._peers.list_page(
                peer, prefix, recursive=recursive, token=token, page_size=page_size
            ),
            lambda: page_of(self._guarded),
            lambda: page_of(self._inner),
        )

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        """As the owner of the object's first shard says; nobody else asks the origin for it."""
        digest = shard_digest(info.uri, info.version, 0)
        if not self._blocks.is_ours(digest):
            return await self._peers.whole(self._placement.owners(digest)[0], info)
        try:
            return await self._guarded.whole_checksum(info)
        except OriginUnavailable:
            return None  # the blocks may come from a peer: their own checksums will do

    async def fetch(self, want: Want, target: Target) -> Fetched:
        """From the origin; when that fails while others may reach it, from them."""
        try:
            return await self._blocks.helped(
                want, target, lambda: self._guarded.fetch(want, target)
            )
        except OriginUnavailable:
            return await self._inner.fetch(want, target)

    async def close(self) -> None:
        """Give up the origin."""
        await self._inner.close()

    async def _asked(
        self,
        name: str,
        ask: Callable[[PeerAddress], Awaitable[T]],
        ask_guarded: Callable[[], Awaitable[T]],
        ask_origin: Callable[[], Awaitable[T]],
    ) -> T:
        """From the owners before us, from the origin, from the owners after us, and whatever it takes."""
        owners = self._placement.owners(xxhash.xxh3_128_digest(name.encode()))
        ids = [peer.id for peer in owners]
        ours = ids.index(self._placement.me) if self._placement.me in ids else len(ids)
        for peer in owners[:ours]:
            try:
                return await ask(peer)
            except PeerFailed as failed:
                log.debug("%s of %s: %s", name, peer.id, failed)
        try:
            return await ask_guarded()
        except OriginUnavailable:
            for peer in owners[ours + 1 :]:
                try:
                    return await ask(peer)
                except PeerFailed as failed:
                    log.debug("%s of %s: %s", name, peer.id, failed)
        return await ask_origin()

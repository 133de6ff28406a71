"""Leaving: what a draining member has in use goes to those who own it from then on, before it exits.

    the leaver         what was used last and was its own -> the owner without it: "this is yours now"
    the new owner      fetches what it does not have, behind its own demand; it finds it at the leaver, who
                       still serves and is asked before the origin (blocks.py)

Bounded by bytes and by time. What is not taken over is asked of the leaver while it is there, and of the
origin afterwards, as if it had died.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from cache_server.cluster.peers import PeerFailed
from cache_server.cluster.ports import PeerAddress, Placement
from cache_server.store.options import NoSpace
from cache_server.store.shard import ShardKey
from hotshard.core.errors import HotshardError, InvalidRequest
from hotshard.core.objects import ObjectInfo

log = logging.getLogger(__name__)

SHARDS_MAX = 256
"""In one offer."""
BATCH_BYTES = 64 << 20
"""In one offer, unless one shard is larger: what is not answered in time counts as not taken."""
AT_ONCE = 4
"""Shards that a member fetches at one time of what it was offered."""


class Asks(Protocol):
    """What of cache_server.cluster.peers.Peers is needed here."""

    async def offer(
        self, peer: PeerAddress, shards: Sequence[ShardKey], limit_s: float
    ) -> tuple[int, int]:
        """Shards and bytes that a member took over; PeerFailed: nothing can be said."""


class Leaving:
    """Offers, once. Use from the event loop only."""

    def __init__(
        self,
        placement: Placement,
        peers: Asks,
        used_last: Callable[[int], Awaitable[list[ShardKey]]],
    ) -> None:
        self._placement = placement
        self._peers = peers
        self._used_last = used_last

    async def offer(self, size_max: int, limit_s: float) -> tuple[int, int]:
        """Offer what was ours, after we are no owner any more; the bytes offered, and those taken over."""
        heirs: dict[PeerAddress, list[ShardKey]] = {}
        for key in await self._used_last(size_max):
            heir = self._heir(key.digest)
            if heir is not None:
                heirs.setdefault(heir, []).append(key)
        offered = sum(key.size for keys in heirs.values() for key in keys)
        taken: Counter[str] = Counter()
        try:
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
                for heir, keys in heirs.items():
                    group.create_task(self._offer_to(heir, keys, limit_s, taken))
        except TimeoutError:
            log.info("there was no time to hand over everything")
        log.info(
            "what was in use was offered to its next owners",
            extra={"offered": offered, "taken": taken["bytes"], "members": len(heirs)},
        )
        return offered, taken["bytes"]

    def _heir(self, digest: bytes) -> PeerAddress | None:
        """Who owns a shard now that was ours until we began to leave."""
        before, now = self._placement.previous_owners(digest), self._placement.owners(digest)
        ours = bool(before) and before[0].id == self._placement.me
        return now[0] if ours and now and now[0].id != self._placement.me else None

    async def _offer_to(
        self, heir: PeerAddress, keys: Sequence[ShardKey], limit_s: float, taken: Counter[str]
    ) -> None:
        try:
            for batch in _batches(keys):
                _, size = await self._peers.offer(heir, batch, limit_s)
                taken["bytes"] += size
        except PeerFailed as failed:
            log.info("%s takes nothing over: %s", heir.id, failed)


class Takes(Protocol):
    """Who takes over what another member offers."""

    async def take(self, offered: Sequence[tuple[ObjectInfo, int]]) -> tuple[int, int]:
        """Fetch what is not here; shards and bytes that came."""


class Taking:
    """Takes over what another member offers. Use from the event loop only."""

    def __init__(
        self,
        make_resident: Callable[[ObjectInfo, Sequence[int]], Awaitable[None]],
        keys: Callable[[ObjectInfo], Sequence[ShardKey]],
        is_sealed: Callable[[bytes], bool],
        on_taken: Callable[[int], None],
    ) -> None:
        self._make_resident = make_resident
        self._keys = keys
        self._is_sealed = is_sealed
        self._on_taken = on_taken

    async def take(self, offered: Sequence[tuple[ObjectInfo, int]]) -> tuple[int, int]:
        """Fetch what is not here; shards and bytes that came.

        Raises:
            InvalidRequest: it is too much, or there are no such shards.
        """
        if len(offered) > SHARDS_MAX:
            raise InvalidRequest(f"{len(offered)} shards in one offer; at most {SHARDS_MAX}")
        missing: list[tuple[ObjectInfo, int, int]] = []
        for info, index in offered:
            keys = self._keys(info)
            if index >= len(keys):
                raise InvalidRequest(f"{info.uri} has no shard {index}", uri=info.uri)
            if not self._is_sealed(keys[index].digest):
                missing.append((info, index, keys[index].size))
        todo = iter(missing)
        came: list[int] = []

        async def worker() -> None:
            for info, index, size in todo:
                if await self._took(info, index):
                    self._on_taken(size)
                    came.append(size)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
        return len(came), sum(came)

    async def _took(self, info: ObjectInfo, index: int) -> bool:
        try:
            await self._make_resident(info, (index,))
        except (HotshardError, NoSpace) as error:
            log.info("shard %d of %s was not taken over: %s", index, info.uri, error)
            return False
        return True


def _batches(keys: Sequence[ShardKey]) -> Iterator[Sequence[ShardKey]]:
    batch: list[ShardKey] = []
    size = 0
    for key in keys:
        if batch and (len(batch) == SHARDS_MAX or size + key.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += key.size
    if batch:
        yield batch
